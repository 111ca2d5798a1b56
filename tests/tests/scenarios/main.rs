//! Every promise, shown on real parts. One module a line of `docs/testing.md`.

mod parts;
