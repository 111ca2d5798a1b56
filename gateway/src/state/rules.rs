//! Rules of a bucket by which its store acts on objects by itself: what expires is lost, and what is
//! kept cannot be deleted. No trial shows them, so the store is asked.

use aws_sdk_s3::Client;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::types::{ExpirationStatus, LifecycleRule};

/// Answers of a store that knows the question and has no such rule.
const NO_LIFECYCLE: &str = "NoSuchLifecycleConfiguration";
const NO_LOCK: [&str; 2] =
    ["ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration"];

/// Why state under `prefix` would not stay as it is written, as far as the store says.
pub(super) async fn objection(client: &Client, bucket: &str, prefix: &str) -> Option<&'static str> {
    let asked = client.get_bucket_lifecycle_configuration().bucket(bucket).send().await;
    match asked {
        Ok(answer) if answer.rules().iter().any(|rule| touches(rule, prefix)) => {
            return Some(
                "a lifecycle rule of the bucket expires or moves what is in it; remove the rule, or have it leave \
                 this prefix out",
            );
        }
        Ok(_) => {}
        Err(error) if error.code() == Some(NO_LIFECYCLE) => {}
        Err(error) => unknown(bucket, "lifecycle", error.code()),
    }
    let asked = client.get_object_lock_configuration().bucket(bucket).send().await;
    match asked {
        Ok(answer) => {
            let rule = answer.object_lock_configuration().and_then(|lock| lock.rule());
            if rule.is_some_and(|rule| rule.default_retention().is_some()) {
                return Some(
                    "the bucket keeps what is written for a while (object lock with a default retention), so keys \
                     cannot be deleted; use a bucket without object lock",
                );
            }
        }
        Err(error) if error.code().is_some_and(|code| NO_LOCK.contains(&code)) => {}
        Err(error) => unknown(bucket, "object lock", error.code()),
    }
    None
}

fn unknown(bucket: &str, what: &'static str, code: Option<&str>) {
    tracing::warn!(
        bucket,
        code = code.unwrap_or("no answer"),
        "the store does not say what {what} the bucket of the state has: see to it that there is none"
    );
}

/// Whether a rule makes objects under `prefix` go or moves them. What it says of tags and sizes does not
/// make it harmless.
fn touches(rule: &LifecycleRule, prefix: &str) -> bool {
    if *rule.status() == ExpirationStatus::Disabled {
        return false;
    }
    let filter = rule.filter();
    let within = filter.and_then(|filter| filter.prefix());
    let within = within.or_else(|| filter.and_then(|filter| filter.and()?.prefix()));
    #[allow(deprecated, reason = "stores still answer in the older form")]
    let within = within.or_else(|| rule.prefix()).unwrap_or_default();
    let acts = rule
        .expiration()
        .is_some_and(|expiration| expiration.days().is_some() || expiration.date().is_some())
        || !rule.transitions().is_empty();
    acts && (within.starts_with(prefix) || prefix.starts_with(within))
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::types::{
        AbortIncompleteMultipartUpload, LifecycleExpiration, LifecycleRuleAndOperator,
        LifecycleRuleFilter, Tag, Transition,
    };

    use super::*;

    #[test]
    fn only_rules_that_reach_the_state_count() {
        let rule = || LifecycleRule::builder().status(ExpirationStatus::Enabled);
        let day = || LifecycleExpiration::builder().days(1).build();
        let under = |prefix: &str| LifecycleRuleFilter::builder().prefix(prefix).build();
        let parts = AbortIncompleteMultipartUpload::builder().days_after_initiation(1).build();
        let tag = Tag::builder().key("a").value("b").build().unwrap();
        let both = LifecycleRuleAndOperator::builder().prefix("site/").tags(tag).build();
        let both = LifecycleRuleFilter::builder().and(both).build();
        for (name, rule, expected) in [
            ("all", rule().expiration(day()), true),
            ("above", rule().expiration(day()).filter(under("si")), true),
            ("within", rule().expiration(day()).filter(under("site/ledger/")), true),
            ("beside", rule().expiration(day()).filter(under("sites/")), false),
            ("with a tag", rule().expiration(day()).filter(both), true),
            ("moved", rule().transitions(Transition::builder().days(1).build()), true),
            ("off", rule().status(ExpirationStatus::Disabled).expiration(day()), false),
            ("parts only", rule().abort_incomplete_multipart_upload(parts), false),
            (
                "markers only",
                rule().expiration(
                    LifecycleExpiration::builder().expired_object_delete_marker(true).build(),
                ),
                false,
            ),
        ] {
            assert_eq!(touches(&rule.build().unwrap(), "site/"), expected, "{name}");
        }
    }
}
