//! What a worker counts. One worker has one lease, so nothing here names it.

tidegate_kit::meters! {
    /// 1 while the worker answers its holder.
    gauge UP = "tidegate_worker_up";
    /// 1 while reads are answered and the gateway was heard within the grace.
    gauge READY = "tidegate_worker_ready";
    /// Workers of this mount that were killed and replaced.
    counter REPLACED = "tidegate_worker_replaced_total";
    /// Reads answered, also with an error; those of replaced workers included, as in all totals of reads and blocks.
    counter READS = "tidegate_worker_reads_total";
    /// Reads answered with an error.
    counter READ_ERRORS = "tidegate_worker_read_errors_total";
    /// Plaintext bytes answered to readers.
    counter READ_BYTES = "tidegate_worker_read_bytes_total";
    /// Time that reads waited for bytes that were not here.
    seconds STALL = "tidegate_worker_stall_seconds";
    /// Blocks that arrived whole.
    counter FETCHED = "tidegate_worker_fetched_blocks_total";
    /// Sealed bytes received.
    counter FETCHED_BYTES = "tidegate_worker_fetched_bytes_total";
    /// Blocks fetched again because they did not open.
    counter REFETCHED = "tidegate_worker_refetched_blocks_total";
    /// Time from asking for a block until it lies whole in the cache.
    seconds FETCH = "tidegate_worker_fetch_seconds";
    /// Fetches that brought no whole block: `torn` is asked again.
    counter FETCH_FAILED = "tidegate_worker_fetch_failures_total" by ["reason"];
    /// Blocks of the share.
    gauge SHARE = "tidegate_worker_share_blocks";
    /// Blocks that lie whole in the cache.
    gauge RESIDENT = "tidegate_worker_resident_blocks";
    /// Sealed bytes that the cache has room for on disk.
    gauge CACHE = "tidegate_worker_cache_bytes";
    /// Plaintext bytes that went into the kernel's page cache, as an upper bound.
    gauge PAGE_CACHE = "tidegate_worker_page_cache_bytes";
    /// Bytes of the buffer budget in use.
    gauge BUFFERS = "tidegate_worker_buffer_bytes";
    /// The buffer budget.
    gauge BUFFERS_LIMIT = "tidegate_worker_buffer_limit_bytes";
    /// Heartbeats that the gateway did not answer.
    counter HEARTBEATS_FAILED = "tidegate_worker_heartbeats_failed_total";
    /// Time since the gateway last answered a heartbeat.
    gauge HEARTBEAT_AGE = "tidegate_worker_heartbeat_age_seconds";
    /// Time for which reads are answered without another word of the gateway.
    gauge GRACE_LEFT = "tidegate_worker_grace_left_seconds";
    /// Bytes of results that are not at home.
    gauge RESULTS_UNSENT = "tidegate_results_unsent_bytes";
    /// Sealed bytes of results on the worker's disk.
    gauge RESULTS_SPOOL = "tidegate_results_spool_bytes";
    /// Plaintext bytes of results brought home; what was stored again counts again.
    counter RESULTS_HOME_BYTES = "tidegate_results_home_bytes_total";
    /// Files brought home; what was stored again counts again.
    counter RESULTS_HOME_FILES = "tidegate_results_home_files_total";
    /// For how long the oldest byte of results that is not at home has been waiting.
    gauge RESULTS_OLDEST = "tidegate_results_oldest_unsaved_seconds";
    /// End of the lease in seconds since the Unix epoch, by the gateway's clock.
    gauge DEADLINE = "tidegate_worker_deadline_timestamp_seconds";
}
