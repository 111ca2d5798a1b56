//! Results on their way home: where they lie, how they get there whole, and what each lease may bring.
//!
//! * [`Home`] is a directory tree or a bucket with a prefix. A file appears there whole or not at all:
//!   by rename from the lease's own temporary directory, or because a store shows nothing of an upload
//!   before it is complete.
//! * [`Desk`] is what one lease's requests share while this process lives: the home, the rest of its
//!   budget, the newest request for each path, its rate.
//! * [`Ticket`] and receipts are what a worker carries from one request to the next, so that any replica,
//!   and a restarted one, goes on where another stopped.
//!
//! Nothing is written anywhere but at home.

mod bucket;
mod clerk;
mod desk;
mod directory;
mod error;
mod file;
mod home;
mod intake;
mod names;
mod purse;
mod ticket;
mod turns;

pub(crate) use clerk::listing_document;
pub(crate) use desk::Desk;
pub(crate) use error::HomeError;
pub(crate) use file::{Arrival, Gone, Kept, Provenance, Upload};
pub(crate) use home::Home;
pub(crate) use intake::{Framed, Intake, Room, Sealing};
pub(crate) use names::{checked, is_reserved};
pub(crate) use purse::Share;
pub(crate) use ticket::{Ticket, copied_from, copied_tag, receipt, receipt_holds};
pub(crate) use turns::{Standing, Turn};
