//! Events within one thread of an async runtime: every subscriber's task waits for the next one.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use bytes::Bytes;

/// Events kept for tasks that are still sending earlier ones.
const EVENTS_KEPT: usize = 1024;

/// The thread's events. Clones are the same hub.
#[derive(Clone, Default)]
pub struct Hub(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    events: VecDeque<Bytes>,
    /// How many events there have been.
    count: u64,
    waiting: Vec<Waker>,
}

impl Hub {
    /// Wakes every subscriber.
    pub fn publish(&self, event: Bytes) {
        let mut state = self.0.borrow_mut();
        state.events.push_back(event);
        state.count += 1;
        if state.events.len() > EVENTS_KEPT {
            state.events.pop_front();
        }
        for waker in state.waiting.drain(..) {
            waker.wake();
        }
    }

    /// How many events there have been.
    pub fn count(&self) -> u64 {
        self.0.borrow().count
    }

    /// The event after the first `seen`; the oldest kept one if that is gone.
    pub async fn next(&self, seen: u64) -> Bytes {
        poll_fn(|context| {
            let mut state = self.0.borrow_mut();
            if state.count > seen {
                let back = ((state.count - seen) as usize).min(state.events.len());
                return Poll::Ready(state.events[state.events.len() - back].clone());
            }
            state.waiting.push(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}
