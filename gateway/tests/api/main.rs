//! The gateway over real TLS on loopback, spoken to by a worker written by hand.

#[cfg(test)]
mod admin;
#[cfg(test)]
mod attaching;
#[cfg(test)]
mod bounds;
#[cfg(test)]
mod bringing;
#[cfg(test)]
mod dormant;
#[cfg(test)]
mod flow;
#[cfg(test)]
mod ops;
#[cfg(test)]
mod order;
#[cfg(test)]
mod ranks;
#[cfg(test)]
mod record;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod results;
#[cfg(test)]
mod results_apart;
#[cfg(test)]
mod results_ends;
#[cfg(test)]
mod results_refused;
#[cfg(test)]
mod silence;
#[cfg(test)]
mod windows;
#[cfg(test)]
mod worker;
