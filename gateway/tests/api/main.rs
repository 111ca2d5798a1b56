//! The gateway over real TLS on loopback, spoken to by a worker written by hand.

mod admin;
mod flow;
mod order;
mod refusals;
mod worker;
