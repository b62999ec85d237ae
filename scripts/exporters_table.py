"""The part of docs/metrics.md about others' exporters: of Kafka everything (our rules name it), of PostgreSQL and hosts what boards and
alerts use."""

from collections.abc import Iterator
from typing import Final, NamedTuple

import yaml

from iot_platform.files import DEPLOY

RULES: Final = DEPLOY / "prometheus" / "kafka-jmx.yaml"
HEADS: Final = {
    "en": """## What servers say of themselves
Others' exporters, each a job of Prometheus' configuration. `MONITORING=1 make up` starts them; on servers of your own:
[operations](operations.md#8--metrics).
""",
    "zh": """## 服务器自身的指标
他人的导出器，每个都是 Prometheus 配置中的一个作业。`MONITORING=1 make up` 会启动它们；在自己的服务器上：
[运维](operations.zh-CN.md#8--指标)。
""",
}
_COLUMNS: Final = {"en": "| job | metric | labels | meaning |", "zh": "| job | 指标 | 标签 | 含义 |"}


class Row(NamedTuple):
    """One metric of an exporter, as it is queried."""

    job: str
    name: str
    labels: tuple[str, ...]
    english: str
    chinese: str


OTHERS: Final = (
    Row(
        "kafka",
        "jvm_memory_used_bytes",
        ("area",),
        "Memory of Kafka's Java in use: heap, nonheap.",
        "Kafka 的 Java 使用的内存：heap、nonheap。",
    ),
    Row("kafka", "jvm_memory_max_bytes", ("area",), "Most that it may use.", "最多可用的内存。"),
    Row("kafka", "jvm_gc_collection_seconds_sum", ("gc",), "Time that its garbage collections took.", "垃圾回收用的时间。"),
    Row("kafka", "process_cpu_seconds_total", (), "Its processor time.", "处理器时间。"),
    Row("postgres", "pg_up", (), "1 while PostgreSQL answers its exporter.", "PostgreSQL 应答其导出器时为 1。"),
    Row("postgres", "pg_database_size_bytes", ("datname",), "Size of a database.", "数据库的大小。"),
    Row("postgres", "pg_stat_database_xact_commit", ("datname",), "Transactions committed (a counter).", "提交的事务（计数器）。"),
    Row("postgres", "pg_stat_database_xact_rollback", ("datname",), "Transactions rolled back (a counter).", "回滚的事务（计数器）。"),
    Row("postgres", "pg_stat_database_blks_hit", ("datname",), "Blocks found in the cache (a counter).", "在缓存中找到的块（计数器）。"),
    Row("postgres", "pg_stat_database_blks_read", ("datname",), "Blocks read (a counter).", "读取的块（计数器）。"),
    Row("postgres", "pg_stat_database_deadlocks", ("datname",), "Deadlocks (a counter).", "死锁（计数器）。"),
    Row("postgres", "pg_stat_database_temp_bytes", ("datname",), "Bytes of temporary files (a counter).", "临时文件的字节数（计数器）。"),
    Row("postgres", "pg_stat_database_temp_files", ("datname",), "Temporary files (a counter).", "临时文件数（计数器）。"),
    Row("postgres", "pg_stat_database_numbackends", ("datname",), "Sessions of a database.", "一个数据库的会话。"),
    Row("postgres", "pg_stat_database_tup_inserted", ("datname",), "Rows inserted (a counter).", "插入的行（计数器）。"),
    Row("postgres", "pg_stat_database_tup_updated", ("datname",), "Rows updated (a counter).", "更新的行（计数器）。"),
    Row("postgres", "pg_stat_database_tup_deleted", ("datname",), "Rows deleted (a counter).", "删除的行（计数器）。"),
    Row("postgres", "pg_locks_count", ("datname", "mode"), "Locks that are held or awaited.", "持有或等待的锁。"),
    Row("postgres", "pg_wal_size_bytes", (), "Size of the WAL (not of exporters before 0.12).", "WAL 的大小（0.12 之前的导出器没有）。"),
    Row("node", "node_cpu_seconds_total", ("cpu", "mode"), "Processor time by mode.", "按模式的处理器时间。"),
    Row("node", "node_memory_MemAvailable_bytes", (), "Memory that programs can still have.", "程序还可用的内存。"),
    Row("node", "node_memory_MemTotal_bytes", (), "Memory of the host.", "主机的内存。"),
    Row("node", "node_pressure_io_waiting_seconds_total", (), "Time in which some process waited for a disk.", "有进程在等待磁盘的时间。"),
    Row("node", "node_pressure_memory_waiting_seconds_total", (), "… for memory.", "……等待内存的时间。"),
    Row("node", "node_pressure_cpu_waiting_seconds_total", (), "… for a processor.", "……等待处理器的时间。"),
    Row("node", "node_filesystem_avail_bytes", ("device", "fstype", "mountpoint"), "Room that is left.", "剩余空间。"),
    Row("node", "node_filesystem_size_bytes", ("device", "fstype", "mountpoint"), "Size of a file system.", "文件系统的大小。"),
    Row("node", "node_filesystem_readonly", ("device", "fstype", "mountpoint"), "1 where nothing can be written.", "不能写入时为 1。"),
    Row("node", "node_disk_io_time_seconds_total", ("device",), "Time in which a disk was busy.", "磁盘忙碌的时间。"),
    Row("node", "node_network_receive_bytes_total", ("device",), "Bytes received.", "接收的字节数。"),
    Row("node", "node_network_transmit_bytes_total", ("device",), "Bytes sent.", "发送的字节数。"),
    Row("node", "node_timex_sync_status", (), "1 while a time service corrects the clock.", "有时间服务校正时钟时为 1。"),
    Row(
        "node",
        "node_timex_maxerror_seconds",
        (),
        "Most that the clock is off by the kernel's estimate, 16 at most.",
        "内核估计的时钟最大误差，最大为 16。",
    ),
)
CHINESE: Final = {
    "kafka_active_controllers": "领导的控制器上为 1，其余为 0；所有控制器之和必须为 1。",
    "kafka_active_brokers": "控制器看到的、参与工作的 broker。",
    "kafka_fenced_brokers": "控制器看到的、已注册但不参与的 broker。",
    "kafka_offline_partitions": "控制器看到的、没有 leader 的分区；既不能写也不能读。",
    "kafka_unclean_leader_elections_total": "选出可能缺少已确认消息的 leader 的次数。",
    "kafka_under_replicated_partitions": "由该 broker 领导、有副本缺失或落后的分区。",
    "kafka_under_min_in_sync_partitions": "由该 broker 领导、同步副本少于 min.insync.replicas 因而不接收消息的分区。",
    "kafka_partitions": "该 broker 有副本的分区。",
    "kafka_leader_partitions": "该 broker 领导的分区。",
    "kafka_topic_received_messages_total": "写入平台主题的消息。",
    "kafka_topic_received_bytes_total": "写入平台主题的字节数。",
    "kafka_topic_sent_bytes_total": "从平台主题读出的字节数。",
    "kafka_received_bytes_total": "写入所有主题的字节数。",
    "kafka_sent_bytes_total": "从所有主题读出的字节数。",
    "kafka_failed_produce_requests_total": "失败的写请求。",
    "kafka_failed_fetch_requests_total": "失败的读请求。",
    "kafka_request_handlers_idle_ratio": "最近一分钟内，处理请求的线程空闲的比例。",
    "kafka_network_processors_idle_ratio": "读写连接的线程空闲的比例。",
    "kafka_request_queue_requests": "等待线程的请求。",
    "kafka_requests_total": "已应答的请求。",
    "kafka_request_seconds": "最近几分钟内请求从收到到应答的时间；FetchConsumer 会等待消息，最长为消费者的 fetch.wait.max.ms。",
    "kafka_request_queue_seconds": "最近几分钟内请求等待线程的时间。",
    "kafka_offline_log_directories": "该 broker 不再能读写的日志文件夹。",
    "kafka_log_flushes_total": "把段强制写入磁盘的次数。",
    "kafka_log_flush_seconds": "最近几分钟内把段强制写入磁盘用的时间。",
    "kafka_log_bytes": "该 broker 上一个分区的日志大小。",
}


def rows() -> Iterator[Row]:
    """All that the page lists. Raises KeyError for a metric of Kafka's without a Chinese meaning."""
    for rule in yaml.safe_load(RULES.read_text("utf-8"))["rules"]:
        yield Row("kafka", rule["name"], tuple(rule.get("labels", ())), rule["help"], CHINESE[rule["name"]])
    yield from OTHERS


def render(language: str) -> str:
    """The part, `en` or `zh`."""
    lines = [HEADS[language], _COLUMNS[language], "|---|---|---|---|"]
    for row in rows():
        labels = ", ".join(f"`{label}`" for label in row.labels)
        lines.append(f"| {row.job} | `{row.name}` | {labels} | {row.english if language == 'en' else row.chinese} |")
    return "\n".join(lines) + "\n"
