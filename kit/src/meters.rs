//! What is counted of the state store and the ledger.

crate::meters! {
    /// Time of a request to the state store, its retries included.
    seconds STATE_REQUEST = "tidegate_state_request_seconds" by ["operation"];
    /// Requests that the state store did not answer, or answered with an error.
    counter STATE_ERRORS = "tidegate_state_errors_total" by ["operation"];
    /// Entries in the ledger, as far as this process knows.
    gauge LEDGER_ENTRIES = "tidegate_ledger_entries";
    /// Time of the newest entry in seconds since the Unix epoch.
    gauge LEDGER_TIME = "tidegate_ledger_newest_entry_timestamp_seconds";
    /// Time from asking for entries until they are durable, with their checkpoint's copy.
    seconds LEDGER_APPEND = "tidegate_ledger_append_seconds";
    /// Appends that failed: nothing is released until one succeeds.
    counter LEDGER_ERRORS = "tidegate_ledger_errors_total";
}
