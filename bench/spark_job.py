"""The peer: a Spark Structured Streaming job as a team would write it, from the same topic to tables of the same kind.

Belongs here: the job, and what it took, printed as JSON. Doesn't: fetching Spark, running this (spark.py). It runs in a
Python of its own and imports nothing of the project.

Bronze is one query, silver with the minute aggregates another, both from Kafka at once. Duplicates are dropped within a
watermark, minutes are merged. Nothing is proved afterwards, nothing rejected is kept, and a name is not followed.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it

_FIELDS = (
    "customer_id bigint, message_id string, customer_name string, channel string, payload string, event_datetime string"
)
_KEYS = ("customer_id", "channel", "minute")


def _session(jars: Path) -> SparkSession:
    builder: Any = SparkSession.builder
    settings = {
        "spark.jars": ",".join(map(str, sorted(jars.glob("*.jar")))),
        "spark.driver.extraClassPath": f"{jars}/*",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.driver.memory": "4g",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "4",
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.streaming.noDataMicroBatches.enabled": "false",
    }
    builder = builder.master(f"local[{os.cpu_count()}]").appName("peer")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session: SparkSession = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def main(bootstrap: str, topic: str, out: Path, jars: Path) -> None:
    """Reads the topic to its end, and prints what that took: wall and CPU seconds, peak bytes, and rows."""
    began = time.monotonic()
    spark = _session(jars)

    def topic_of() -> DataFrame:
        reader = spark.readStream.format("kafka").option("kafka.bootstrap.servers", bootstrap)
        reader = reader.option("subscribe", topic).option("startingOffsets", "earliest")
        return reader.option("maxOffsetsPerTrigger", "1001000").option("failOnDataLoss", "true").load()

    def started(rows: DataFrame, name: str) -> Any:
        writer = rows.writeStream.option("checkpointLocation", f"{out}/_checkpoints/{name}")
        return writer.trigger(availableNow=True).queryName(name)

    def to_silver(rows: DataFrame, batch: int) -> None:
        rows.persist()
        writer = rows.write.format("delta").mode("append").partitionBy("event_date")
        writer.option("txnAppId", "silver").option("txnVersion", batch).save(f"{out}/silver")
        _merge(spark, rows, out / "gold")
        rows.unpersist()

    record = topic_of()
    bronze = record.select("key", "value", "partition", "offset", "timestamp", F.to_date("timestamp").alias("day"))
    queries = [started(bronze, "bronze").format("delta").partitionBy("day").start(f"{out}/bronze")]
    message = topic_of().select(F.from_json(F.col("value").cast("string"), _FIELDS).alias("m")).select("m.*")
    message = message.withColumn("event_datetime", F.to_timestamp("event_datetime"))
    message = message.where("customer_id is not null and message_id is not null and event_datetime is not null")
    message = message.withColumn("event_date", F.to_date("event_datetime")).withWatermark(
        "event_datetime", "10 minutes"
    )
    unique = message.dropDuplicatesWithinWatermark(["customer_id", "message_id"])
    queries.append(started(unique, "silver").foreachBatch(to_silver).start())
    for query in queries:
        query.awaitTermination()
        if query.exception():
            raise RuntimeError(query.exception())
    wall = time.monotonic() - began
    pids = (os.getpid(), int(spark._jvm.java.lang.ProcessHandle.current().pid()))
    cpu, peak = (sum(of(pid) for pid in pids) for of in (_cpu, _peak))
    rows = {name: spark.read.format("delta").load(f"{out}/{name}").count() for name in ("bronze", "silver", "gold")}
    print(json.dumps({"wall": wall, "cpu": cpu, "peak": peak, "rows": rows}))


def _merge(spark: SparkSession, rows: DataFrame, path: Path) -> None:
    minutes = rows.groupBy("customer_id", "channel", F.date_trunc("minute", "event_datetime").alias("minute"))
    counted = minutes.agg(F.count("*").alias("n"))
    if not DeltaTable.isDeltaTable(spark, str(path)):
        counted.write.format("delta").save(str(path))
        return
    same = " and ".join(f"t.{key} = s.{key}" for key in _KEYS)
    merge = DeltaTable.forPath(spark, str(path)).alias("t").merge(counted.alias("s"), same)
    merge.whenMatchedUpdate(set={"n": "t.n + s.n"}).whenNotMatchedInsertAll().execute()


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
