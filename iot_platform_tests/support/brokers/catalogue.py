"""All brokers by name, and how they behave."""

from dataclasses import replace
from typing import Final

from iot_platform_tests.support.brokers.apt import Ejabberd, Mosquitto21, RabbitMq3, RabbitMq4
from iot_platform_tests.support.brokers.go import Mochi, Nats
from iot_platform_tests.support.brokers.habits import Habits
from iot_platform_tests.support.brokers.java import Artemis, HiveMq, Moquette
from iot_platform_tests.support.brokers.rust import Rumqttd
from iot_platform_tests.support.brokers.scripts import Aedes, AedesLevel, Amqtt
from iot_platform_tests.support.brokers.server import BrokerServer, Protocol

BROKERS: Final[dict[str, type[BrokerServer]]] = {
    broker.NAME: broker
    for broker in (
        Mosquitto21,
        RabbitMq4,
        RabbitMq3,
        HiveMq,
        Artemis,
        Mochi,
        Rumqttd,
        Ejabberd,
        Nats,
        Aedes,
        AedesLevel,
        Moquette,
        Amqtt,
    )
}

_WELL_BEHAVED: Final = Habits(
    small_window=False,
    dup=True,
    same_ids=True,
    comes_after_seconds=0,
    absence=True,
    restart=True,
    kill=True,
    retained_again=False,
    dots_kept=True,
)
_MOSQUITTO: Final = replace(_WELL_BEHAVED, kill=False)  # before the first save
_RABBITMQ: Final = replace(_WELL_BEHAVED, small_window=True, same_ids=False, dots_kept=False)
_HIVEMQ: Final = replace(_WELL_BEHAVED, small_window=True)
_EJABBERD: Final = replace(_WELL_BEHAVED, small_window=True, restart=False, kill=False)
_ARTEMIS: Final = replace(_WELL_BEHAVED, dup=False, same_ids=False)
HABITS: Final[dict[tuple[str, Protocol], Habits]] = {
    ("mosquitto-2.1", "5"): _MOSQUITTO,
    ("mosquitto-2.1", "3.1.1"): replace(_MOSQUITTO, retained_again=True),
    ("rabbitmq-4", "5"): _RABBITMQ,
    ("rabbitmq-4", "3.1.1"): _RABBITMQ,
    ("rabbitmq-3", "3.1.1"): _RABBITMQ,
    ("hivemq", "5"): _HIVEMQ,
    ("hivemq", "3.1.1"): replace(_HIVEMQ, retained_again=True),
    ("artemis", "5"): _ARTEMIS,
    ("artemis", "3.1.1"): replace(_ARTEMIS, retained_again=True),
    ("mochi", "5"): _WELL_BEHAVED,
    ("mochi", "3.1.1"): replace(_WELL_BEHAVED, retained_again=True),
    ("ejabberd", "5"): _EJABBERD,
    ("ejabberd", "3.1.1"): replace(_EJABBERD, retained_again=True),
    ("nats", "3.1.1"): replace(_WELL_BEHAVED, comes_after_seconds=30, retained_again=True),
    ("aedes", "3.1.1"): replace(_WELL_BEHAVED, dup=False, restart=False, kill=False, retained_again=True),
    ("moquette", "3.1.1"): replace(_WELL_BEHAVED, small_window=True, comes_after_seconds=5, kill=False, retained_again=True),
}
"""What `Probe.habits` finds. Not of aedes-level and amqtt, which behave differently from run to run, nor of
rumqttd, which stops answering."""
