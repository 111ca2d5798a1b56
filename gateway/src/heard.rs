//! When workers were last heard, by whichever replica they speak to.

use tidegate_lease::Lease;

use crate::book::Document;
use crate::live::Live;
use crate::office::Office;

/// The lease with the latest signs of life, of the ranks that have something left to say.
pub(crate) fn as_heard(office: &Office, live: &Live, document: &Document) -> Lease {
    let mut lease: Lease = document.lease.clone();
    live.note_seen(&mut lease);
    lease.attachments.retain(|held| !document.certificates.contains_key(&held.rank));
    for held in &mut lease.attachments {
        // Who speaks to another replica is heard there, and that is written down in time.
        if document.keepers.contains_key(&held.rank)
            && !document.is_kept_by(held.rank, &office.replica)
        {
            held.last_seen = held.last_seen.saturating_add(u64::from(office.config.certificate_s));
        }
    }
    lease
}
