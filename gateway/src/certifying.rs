//! Workers' certificates: at most a quarter of an hour. They say who calls; what the caller may have is
//! asked of the lease, so one that outlives it opens nothing, and a worker that takes long to wipe can
//! still say so.

use tidegate_plan::InstanceId;

use crate::live::Live;
use crate::office::Office;
use crate::problem::Refusal;

/// For whom a certificate is made.
pub(crate) struct Holder {
    pub(crate) rank: u16,
    pub(crate) instance: InstanceId,
    pub(crate) identity: [u8; 32],
}

/// Issues a certificate (PEM) and says when it ends, seconds since the epoch.
pub(crate) fn issue(
    office: &Office,
    live: &Live,
    holder: &Holder,
    now: u64,
) -> Result<(String, u64), Refusal> {
    let until = now + u64::from(office.config.certificate_s);
    let Holder { rank, instance, identity } = holder;
    let issued = office
        .authority
        .issue_client(identity, &live.id, *rank, instance, now, until)
        .map_err(|error| Refusal::internal("a certificate cannot be issued", &error))?;
    live.presence(*rank).certified(now, issued.1);
    crate::meters::CERTIFICATES.add(1);
    Ok(issued)
}
