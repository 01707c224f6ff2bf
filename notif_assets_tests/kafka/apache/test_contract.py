"""What a KafkaClient promises on the embedded broker, it keeps on Apache Kafka: `fresh_topic` is this room's."""

from notif_assets_tests.kafka.test_clients import (
    test_a_missing_topic_is_an_error_and_stays_missing,
    test_a_range_beyond_the_end_is_an_error,
    test_an_abandoned_read_harms_nobody,
    test_batches_keep_their_bounds_whatever_sizes_follow_each_other,
    test_empty_ranges_read_nothing,
    test_keys_values_and_timestamps_as_sent_headers_ignored,
    test_offsets_before_and_after_producing,
    test_one_client_reads_again_and_further,
    test_reads_exactly_the_ranges_in_order,
    test_the_first_two_records_of_each_range_and_little_behind_them,
)

__all__ = [
    "test_a_missing_topic_is_an_error_and_stays_missing",
    "test_a_range_beyond_the_end_is_an_error",
    "test_an_abandoned_read_harms_nobody",
    "test_batches_keep_their_bounds_whatever_sizes_follow_each_other",
    "test_empty_ranges_read_nothing",
    "test_keys_values_and_timestamps_as_sent_headers_ignored",
    "test_offsets_before_and_after_producing",
    "test_one_client_reads_again_and_further",
    "test_reads_exactly_the_ranges_in_order",
    "test_the_first_two_records_of_each_range_and_little_behind_them",
]
