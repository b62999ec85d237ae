"""Writes docs/metrics.md and docs/metrics.zh-CN.md from the code: `make metrics-page`; a contract test keeps them equal to it."""

from collections.abc import Iterable
from pathlib import Path

from prometheus_client.core import Metric

from ingest_daemon.figures import Totals
from ingest_daemon.metrics import Metrics
from iot_platform.api.measures import LABELS, Measures
from iot_platform.metrics.definitions import DEFINITIONS, TOP
from scripts import exporters_table

DOCS = Path(__file__).parents[1] / "docs"
_CERTIFICATE = "iot_ingest_certificate_expiry_timestamp_seconds"

_ENGLISH = f"""# Metrics

[中文](metrics.zh-CN.md) · [alerts](alerts.md)

<!-- Written by `make metrics-page` from the code. -->

Names are `iot_[a-z_]+` and hold their unit: `seconds`, `bytes`, `messages`, `_timestamp_seconds` (Unix time); counters end in `_total` and
have every label set from the start, so that `increase()` sees the first event. Labels are few: never a device; of tenants and projects the
{TOP} foremost have series of their own, the rest is `other`. Figures that a server did not give stay as they were seen last:
`iot_look_timestamp_seconds` says when that was, `iot_server_up` who does not answer.
"""
_CHINESE = f"""# 指标

[English](metrics.md) · [告警](alerts.zh-CN.md)

<!-- 由 `make metrics-page` 从代码生成。 -->

名称为 `iot_[a-z_]+`，其中含单位：`seconds`、`bytes`、`messages`、`_timestamp_seconds`（Unix 时间）；计数器以 `_total` 结尾，
所有标签组合从启动起就存在，因此 `increase()` 能看到第一次事件。
标签很少：从不按设备；租户和项目只有最前面的 {TOP} 个有自己的序列，其余合为 `other`。
某个服务器不应答时，数值保持最后一次看到的样子：`iot_look_timestamp_seconds` 说明那是什么时候，`iot_server_up` 说明谁不应答。
"""
_HEADS = {"en": ("metric", "type", "labels", "meaning"), "zh": ("指标", "类型", "标签", "含义")}
_PARTS = {
    "en": ("## Ingest daemon, port 9108", "## `iot metrics`, port 9109", "## Console, port 8000"),
    "zh": ("## 接入守护进程，端口 9108", "## `iot metrics`，端口 9109", "## 控制台，端口 8000"),
}
_KINDS = {"gauge": "测量值", "counter": "计数器", "histogram": "直方图"}

CHINESE = {
    "iot_ingest_messages_received_total": "收到的 PUBLISH 报文，包括重投的。",
    "iot_ingest_messages_delivered_total": "已在 Kafka 主题中的消息。",
    "iot_ingest_messages_dead_lettered_total": "已在死信主题中的消息。",
    "iot_ingest_messages_redelivered_total": "收到的消息中，认出是 broker 重投的。",
    "iot_ingest_messages_given_up_total": "守护进程死亡时未确认、broker 也不会再发的消息。",
    "iot_ingest_mqtt_connections_total": "建立过的 MQTT 连接。",
    "iot_ingest_mqtt_sessions_lost_total": "重连时 broker 已没有我们的会话及其保存的消息的次数。",
    "iot_ingest_messages_in_flight": "已收到、尚未了结的消息，包括崩溃后等待重投的。",
    "iot_ingest_messages_awaiting_redelivery": "守护进程死亡时在途、broker 还没有重发的消息。",
    "iot_ingest_payload_bytes_in_flight": "在途消息的载荷字节数。",
    "iot_ingest_spool_messages": "磁盘落盘队列中的消息。",
    "iot_ingest_messages_missing": "从落盘队列消失的消息：除非文件回来，否则已丢失。",
    "iot_ingest_last_message_timestamp_seconds": "最后一条消息的接收时间（Unix 时间）。",
    "iot_ingest_messages_resent_total": "同一连接上在途消息的重发报文：丢弃，不算再次收到。自本次启动起。",
    "iot_ingest_mqtt_connected": "已连接并订阅 MQTT broker 时为 1。",
    "iot_ingest_silent_seconds": "订阅有效却没有消息到来的时长。",
    "iot_ingest_silent_after_seconds": "这可以持续多久：IOT_INGEST_SILENT_SECONDS，或从过去一周的停顿学到。",
    "iot_ingest_kafka_up": "Kafka 应答且两个主题都在时为 1。",
    "iot_ingest_spool_bytes": "落盘队列占用的磁盘字节数。",
    "iot_ingest_spool_limit_bytes": "落盘队列最多可用的字节数：IOT_INGEST_SPOOL_BYTES。",
    "iot_ingest_spool_oldest_timestamp_seconds": "落盘队列中最旧消息的接收时间；为空则为 0。",
    "iot_ingest_spool_full": "落盘队列不再接收时为 1：它满了，或它的磁盘满了；消息由 broker 保存。",
    "iot_ingest_clock_offset_seconds": "本机时钟减去 Kafka 的时钟，最近一次比较的结果。",
    _CERTIFICATE: "证书到期的 Unix 时间：服务器的、本客户端的，或所信任的 CA 中最后到期的。",
    "iot_console_requests_total": "已应答的请求，按路由和状态；状态 0：对方在应答前已离开。",
    "iot_console_request_seconds": "到应答结束的时间；不含流和导出。",
    "iot_console_logins_total": "登录，按结果。",
    "iot_console_streams": "打开的实时流。",
    "iot_console_connections": "到数据库的连接：控制台自己的角色的，和租户登录账号的。",
    "iot_server_up": "服务器应答平台的导出器时为 1：database、kafka、dagster（其存储）、mqtt（设置了 "
    "IOT_METRICS_MQTT_URL 时）或 backups（备份仓库）。",
    "iot_look_timestamp_seconds": "导出器的一次查看最近何时成功；其数值即当时的。0：导出器启动后还没有过。",
    "iot_look_seconds": "最近一次查看用了多久。",
    "iot_broker_connected_clients": "连接到 MQTT broker 的客户端，包括本导出器。",
    "iot_broker_disconnected_clients": "不在线、会话由 MQTT broker 保留的客户端。",
    "iot_broker_stored_messages": "MQTT broker 持有的消息：会话队列中的，以及保留消息。",
    "iot_broker_stored_bytes": "MQTT broker 持有的消息的载荷字节数。",
    "iot_broker_retained_messages": "MQTT broker 的保留消息。",
    "iot_broker_received_messages_total": "MQTT broker 自启动起收到的 PUBLISH 报文。",
    "iot_broker_sent_messages_total": "MQTT broker 自启动起发出的 PUBLISH 报文。",
    "iot_broker_dropped_messages_total": "MQTT broker 自启动起因某个客户端的队列已满而丢弃的消息；也包括 QoS 1 的：这些已丢失。",
    "iot_broker_heap_bytes": "MQTT broker 分配的内存。",
    "iot_drain_lag_messages": "Kafka 中数据库尚未取走的消息；小于 0：Kafka 里的比已排空的还少。",
    "iot_drain_problem": "某个分区不能直接从下一个偏移量继续时为 1。",
    "iot_drain_last_commit_timestamp_seconds": "排空最近何时提交；0：从未。",
    "iot_kafka_log_cuts_total": "发现 Kafka 日志被截断的次数（账本，一年，最多 100）。",
    "iot_stored_messages_total": "写入 message 的行，包括标为重复的。",
    "iot_quarantined_messages_total": "写入 quarantine 的行。",
    "iot_stored_measurements_total": "已存储的测量值。",
    "iot_conflicting_measurements_total": "因冲突而没有存储的测量值。",
    "iot_project_conflicts_measurements": "过去 24 小时因冲突没有存储的测量值：最多的项目，其余为 other。",
    "iot_freshness_seconds": "导出器启动后提交的消息，按从守护进程接收到提交的时间（一个批次的消息视为均匀分布在首末接收之间）。",
    "iot_tenant_freshness_seconds": "租户最近 5 分钟的提交中，从接收到提交的最长时间；最慢的租户，其余为 other。",
    "iot_sparkplug_sequence_gaps_total": "Sparkplug B 边缘节点序号的跳变：消息没有到达平台。",
    "iot_sparkplug_sequence_missing_total": "这些跳变至少漏掉的序号数。",
    "iot_audit_differences": "最近一次审计发现的差异；必须为 0。",
    "iot_audit_timestamp_seconds": "最近一次审计完成的时间。",
    "iot_quality_incidents": "未关闭且未静默的质量事件。",
    "iot_quality_evaluated_timestamp_seconds": "质量规则最近一次评估的时间。",
    "iot_quality_rule_failed": "质量规则最近一次评估失败时为 1；下一次评估会重做。",
    "iot_sink_lag_messages": "账本中某个 InfluxDB 还没有其测量值的 Kafka 记录数。",
    "iot_sink_behind_seconds": "其中最早一批提交至今的时间；0：全部都有。",
    "iot_sink_failed": "InfluxDB 不接收所发数据，或有设置需要更改时为 1。",
    "iot_sink_missing_measurements": "InfluxDB 拒绝、因而没有的测量值（sink_refused）。",
    "iot_sink_series": "InfluxDB 拥有的序列数；上限为 IOT_INFLUX_MAX_SERIES。",
    "iot_sink_written_measurements_total": "InfluxDB 接收的测量值，包括重复发送的。",
    "iot_sink_retried_requests_total": "因 InfluxDB 没有接收而重发的请求。",
    "iot_rollup_threshold_timestamp_seconds": "汇总存储到的时间。",
    "iot_rollup_notes": "等待汇总的变更小时记录；最多数到 100,000。",
    "iot_table_bytes": "超表在磁盘上的大小。",
    "iot_table_chunks": "超表的分块数。",
    "iot_table_compressed_chunks": "超表已压缩的分块数。",
    "iot_compression_due_chunks": "等待压缩的分块数。",
    "iot_compression_overdue_seconds": "其中最旧的已等待多久；0：没有，或该版本不能压缩。",
    "iot_retention_overdue_seconds": "策略不再保留的分块中最旧的已等待多久；0：没有。",
    "iot_database_bytes": "数据库的大小。",
    "iot_database_growth_bytes": "按最近一周，每天压缩前增加的字节数。",
    "iot_database_limit_bytes": "数据库最多可占的字节数：IOT_DISK_LIMIT_BYTES，或本机磁盘。没有：未知。",
    "iot_disk_left_days": "按现在的增长和策略，距离用满的天数，最多三年。没有：上限未知。",
    "iot_database_connections": "PostgreSQL 服务器的客户端会话数。",
    "iot_database_connections_limit": "它最多接受的客户端会话数。",
    "iot_wal_archive_enabled": "PostgreSQL 归档 WAL 时为 1（archive_mode）。",
    "iot_wal_archive_failures_total": "归档 WAL 段失败的次数（pg_stat_archiver）。",
    "iot_wal_archive_last_success_timestamp_seconds": "最近一次归档 WAL 段的时间；0：从未。",
    "iot_backup_last_success_timestamp_seconds": "每种类型最近一次备份结束的时间；0：没有。不存在：没有设置备份。",
    "iot_backup_drill_last_success_timestamp_seconds": "最近一次通过的恢复演练何时开始；0：没有。不存在：没有建立备份，也没有做过演练。",
    "iot_backup_drill_failed": "最近一次恢复演练没有通过时为 1。不存在：没有做过演练。",
    "iot_dagster_runs_total": "导出器启动后结束的运行。",
    "iot_dagster_run_seconds": "导出器启动后结束的运行用了多久。",
    "iot_dagster_unfinished_runs": "尚未结束的运行。",
    "iot_dagster_oldest_queued_seconds": "最旧的排队运行已等待多久；0：没有。",
    "iot_dagster_heartbeat_timestamp_seconds": "Dagster 守护进程的各部分最近何时报告。",
    "iot_dagster_tick_timestamp_seconds": "传感器或调度最近何时触发。",
    "iot_dagster_tick_failed": "传感器或调度最近结束的一次触发失败时为 1。",
    "iot_dagster_switched_off": "传感器或调度被关闭时为 1。",
}


def daemon_families() -> list[Metric]:
    """What the ingest daemon's page has, without values that mean anything."""
    metrics = Metrics(Totals)
    metrics.show_certificates(dict)
    return list(metrics.registry.collect())


Row = tuple[str, str, tuple[str, ...], str]
"""Name as it is queried, type, labels, meaning."""


def rows() -> tuple[list[Row], ...]:
    """Of the daemon, of `iot metrics`, of the console."""
    daemon = [
        (f"{family.name}_total" if family.type == "counter" else family.name, family.type, _labels(family.name), family.documentation)
        for family in daemon_families()
    ]
    platform = [
        (f"{item.name}_total" if item.kind == "counter" else item.name, str(item.kind), item.labels, item.meaning) for item in DEFINITIONS
    ]
    console = [
        (f"{item.name}_total" if item.type == "counter" else item.name, item.type, LABELS.get(item.name, ()), item.documentation)
        for item in Measures(dict).registry.collect()
    ]
    return daemon, platform, console


def _labels(name: str) -> tuple[str, ...]:
    return ("server", "certificate") if name == _CERTIFICATE else ()


def render(language: str) -> str:
    """The page, `en` or `zh`. Raises KeyError for a metric without a Chinese meaning."""
    text = _ENGLISH if language == "en" else _CHINESE
    for head, part in zip(_PARTS[language], rows(), strict=True):
        text += f"\n{head}\n" + "\n".join(_table(language, part)) + "\n"
    return f"{text}\n{exporters_table.render(language)}"


def _table(language: str, part: Iterable[Row]) -> Iterable[str]:
    yield f"| {' | '.join(_HEADS[language])} |"
    yield "|---|---|---|---|"
    for name, kind, labels, meaning in part:
        shown = (kind, meaning) if language == "en" else (_KINDS[kind], CHINESE[name])
        yield f"| `{name}` | {shown[0]} | {', '.join(f'`{label}`' for label in labels)} | {shown[1]} |"


if __name__ == "__main__":
    (DOCS / "metrics.md").write_text(render("en"), "utf-8")
    (DOCS / "metrics.zh-CN.md").write_text(render("zh"), "utf-8")
