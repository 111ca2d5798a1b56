//! What the gateway counts. Labels say which of a few known cases; nothing names a lease or a worker.

tidegate_kit::meters! {
    /// 1 while the gateway would tell a balancer that it is ready.
    gauge READY = "tidegate_gateway_ready";
    /// Leases that this replica knows, by phase; closed ones are forgotten after a quarter of an hour.
    gauge LEASES = "tidegate_gateway_leases" by ["phase"];
    /// Leases that may still be granted before the limit.
    gauge LEASE_PLACES = "tidegate_gateway_lease_places";
    /// Workers that hold a rank of a lease that is not closed.
    gauge WORKERS = "tidegate_gateway_workers";
    /// Longest time since a worker was heard here that has not wiped.
    gauge SILENCE = "tidegate_gateway_longest_silence_seconds";
    /// Attachments of workers.
    counter ATTACHED = "tidegate_gateway_attachments_total";
    /// Releases of keys.
    counter RELEASES = "tidegate_gateway_key_releases_total";
    /// Certificates of workers, at an attachment or renewed.
    counter CERTIFICATES = "tidegate_gateway_certificates_total";
    /// Leases closed by this replica, by outcome.
    counter CLOSED = "tidegate_gateway_leases_closed_total" by ["outcome"];
    /// Blocks and manifests sent to their last byte.
    counter SERVED = "tidegate_gateway_served_total" by ["what"];
    /// Blocks and manifests that broke off while they were sent.
    counter TORN = "tidegate_gateway_torn_total" by ["what"];
    /// Sealed bytes handed to connections.
    counter SENT = "tidegate_gateway_sealed_bytes_sent_total";
    /// Time from the request of a block or manifest until its first sealed bytes are ready: source and sealing.
    seconds SEAL = "tidegate_gateway_seal_seconds" by ["what"];
    /// Time from the request of a block or manifest until its last sealed bytes went to the connection.
    seconds SERVE = "tidegate_gateway_serve_seconds" by ["what"];
    /// Bytes of buffers between sources and connections in use.
    gauge BUFFERS = "tidegate_gateway_buffer_bytes";
    /// Most bytes of buffers between sources and connections.
    gauge BUFFERS_LIMIT = "tidegate_gateway_buffer_limit_bytes";
    /// Bytes of memory that the listings and selections of open leases take.
    gauge SNAPSHOTS = "tidegate_gateway_snapshot_bytes";
    /// Most bytes of listings and selections before a grant is refused.
    gauge SNAPSHOTS_LIMIT = "tidegate_gateway_snapshot_limit_bytes";
    /// Blocks refused because the source changed or cannot be read.
    counter SOURCE_ERRORS = "tidegate_gateway_source_errors_total" by ["reason"];
    /// Bytes of results that came home; what is stored again counts again.
    counter RESULTS_BYTES = "tidegate_results_stored_bytes_total";
    /// Files of results that came home; what is stored again counts again.
    counter RESULTS_FILES = "tidegate_results_stored_files_total";
    /// Time that a request about results took, from its head until its answer, by what was asked.
    seconds RESULTS = "tidegate_results_seconds" by ["route"];
    /// Requests of callers with a certificate or a proven token that were refused, as in the ledger.
    counter REFUSED = "tidegate_gateway_refusals_total" by ["reason"];
    /// Requests of callers who proved nothing.
    counter STRANGERS = "tidegate_gateway_strangers_refused_total";
    /// Requests, by route and status.
    counter REQUESTS = "tidegate_gateway_requests_total" by ["route", "status"];
    /// Time from a request's head to its answer's head.
    seconds REQUEST = "tidegate_gateway_request_seconds" by ["route"];
    /// Open connections: of workers, of strangers, and those whose handshake is under way.
    gauge CONNECTIONS = "tidegate_gateway_connections" by ["kind"];
    /// Connections closed because there was no place for them.
    counter DROPPED = "tidegate_gateway_connections_dropped_total" by ["reason"];
    /// TLS handshakes that failed or took too long.
    counter HANDSHAKES_FAILED = "tidegate_gateway_handshakes_failed_total";
}
