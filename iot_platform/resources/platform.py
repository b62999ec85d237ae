"""The one Dagster resource: settings of this deployment, read when first used."""

import dagster as dg

from iot_platform.settings import Settings, get_settings


class PlatformResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Hands the process's settings to assets, sensors and jobs; nothing is read before settings() is called."""

    def settings(self) -> Settings:
        """The settings of this process.

        Raises:
            SettingsError: a variable breaks its rule; the message names it.
        """
        return get_settings()
