//! An outside writer: takes the store's lock, or that of a counter's row, holds it for a while, changes configuration, or
//! leaves it.

use super::locks::Holder;
use super::{Actor, Shared, give_way};
use rand::RngExt;
use std::rc::Rc;

pub(super) fn start(world: &Shared) -> Actor {
    let world = Rc::clone(world);
    Box::pin(async move {
        loop {
            give_way().await;
            if !world.borrow().profile.changes || !world.borrow_mut().let_the_outsider_in() {
                continue;
            }
            let steps = world.borrow_mut().rng.random_range(0..4);
            for _ in 0..steps {
                give_way().await;
            }
            let mut world = world.borrow_mut();
            if world.rng.random_range(0..4) != 0 {
                world.change_configuration();
            }
            world.unlock(Holder::Outsider);
        }
    })
}
