//! Keys that a node does not know yet: good ones are looked up at once, looks in vain are paced.

use crate::support::{Folder, business};
use std::time::Duration;
use tokio::time::timeout;
use tracktags_core::CustomerId;
use tracktags_core::audit::Author;
use tracktags_core::keys::Scopes;
use tracktags_core::traits::{Claim, KeyOwner, NewKey};
use tracktags_store::Node;

const KEYS: usize = 100;
/// Looks one after the other, a fiftieth of a second apart, would take twice as long.
const GOOD_WITHIN: Duration = Duration::from_secs(1);
const IN_VAIN: usize = 20;
/// Half of what that many looks in vain must take.
const IN_VAIN_AT_LEAST: Duration = Duration::from_millis(200);

/// Looks a key of a customer up, as the first call with it does.
async fn look(node: &Node, key: &str, customer: &CustomerId) -> Claim {
    let hash = node.hashers[0].hash(key);
    node.store.identify(hash, Some(customer.clone())).await.unwrap()
}

#[tokio::test]
async fn good_keys_are_not_held_up_after_a_start_and_looks_in_vain_are() {
    let folder = Folder::new();
    let node = folder.open();
    let business = business(&node).await.business_id;
    let mut keys = Vec::new();
    for number in 0..KEYS {
        let customer: CustomerId = format!("customer_{number}").parse().unwrap();
        let owner = KeyOwner::Customer(business.clone(), customer.clone());
        let new = NewKey { owner, key_name: None, description: None, expires_at: None, scopes: Scopes::ALL };
        let key = node.store.create_key(Author::server(), new).await.unwrap();
        keys.push((key.plain.expose().to_owned(), customer));
    }
    node.close();
    let node = folder.open();
    let all = async {
        for (key, customer) in &keys {
            assert!(matches!(look(&node, key, customer).await, Claim::Proved(_)), "{customer}");
        }
    };
    timeout(GOOD_WITHIN, all).await.expect("good keys are paced");
    let (_, customer) = &keys[0];
    let in_vain = async {
        for number in 0..IN_VAIN {
            assert!(matches!(look(&node, &format!("nobody's {number}"), customer).await, Claim::Unknown));
        }
    };
    assert!(timeout(IN_VAIN_AT_LEAST, in_vain).await.is_err(), "looks in vain are not paced");
    node.close();
}
