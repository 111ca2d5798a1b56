//! Every promise, shown on real parts. One module a line of `docs/testing.md`.

mod audit;
mod bad_input;
mod bounds;
mod corruption;
mod credentials;
mod doctor;
mod exit_codes;
mod interop;
mod kernels;
mod no_plaintext;
mod only_the_selection;
mod ordinary_user;
mod parts;
mod plan;
mod random_reads;
mod readers;
mod run_directory;
mod run_s3;
mod semantics;
mod signals;
mod source_changes;
mod state_bucket;
mod two_hosts;
mod two_programs;
mod wan;
mod worker_killed;
