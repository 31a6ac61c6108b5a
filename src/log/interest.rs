//! Which workers want to hear of a channel, and how many subscribers each has on it.

/// Nearly every channel of a large server is private and lives on one worker: that case is inline.
#[derive(Debug)]
pub(super) enum Interest {
    None,
    One(Share),
    Many(Box<Shares>),
}

/// One worker's part. Its subscribers are never 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    worker: u16,
    subscribers: u32,
}

/// Two or more, in no order: a publication visits them all anyway.
#[derive(Debug)]
pub(super) struct Shares(Vec<Share>);

impl Interest {
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Subscribers of all workers together.
    pub fn subscribers(&self) -> u32 {
        self.shares().iter().fold(0, |sum, share| sum.saturating_add(share.subscribers))
    }

    /// The interested workers, each once.
    pub fn workers(&self) -> impl Iterator<Item = u16> + '_ {
        self.shares().iter().map(|share| share.worker)
    }

    /// Counts one more subscriber of a worker.
    pub fn join(&mut self, worker: u16) {
        let fresh = Share { worker, subscribers: 1 };
        if let Some(share) = self.share_mut(worker) {
            share.subscribers += 1;
            return;
        }
        match self {
            Self::None => *self = Self::One(fresh),
            Self::One(first) => *self = Self::Many(Box::new(Shares(vec![*first, fresh]))),
            Self::Many(shares) => shares.0.push(fresh),
        }
    }

    /// Counts off `count` subscribers of a worker.
    pub fn leave(&mut self, worker: u16, count: u32) {
        let Some(share) = self.share_mut(worker) else {
            debug_assert!(count == 0, "worker {worker} left what it had not joined");
            return;
        };
        debug_assert!(share.subscribers >= count, "worker {worker} left more than it had joined");
        share.subscribers = share.subscribers.saturating_sub(count);
        if share.subscribers == 0 {
            self.drop_share(worker);
        }
    }

    pub fn check_invariants(&self) {
        let shares = self.shares();
        assert!(shares.iter().all(|share| share.subscribers > 0));
        assert!(!matches!(self, Self::Many(_)) || shares.len() >= 2);
        for (place, share) in shares.iter().enumerate() {
            assert!(shares[..place].iter().all(|other| other.worker != share.worker));
        }
    }

    fn drop_share(&mut self, worker: u16) {
        if let Self::Many(shares) = self {
            shares.0.retain(|share| share.worker != worker);
            if let [last] = shares.0[..] {
                *self = Self::One(last);
            }
        } else {
            *self = Self::None;
        }
    }

    fn shares(&self) -> &[Share] {
        match self {
            Self::None => &[],
            Self::One(share) => std::slice::from_ref(share),
            Self::Many(shares) => &shares.0,
        }
    }

    fn share_mut(&mut self, worker: u16) -> Option<&mut Share> {
        let shares = match self {
            Self::None => &mut [],
            Self::One(share) => std::slice::from_mut(share),
            Self::Many(shares) => &mut shares.0[..],
        };
        shares.iter_mut().find(|share| share.worker == worker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_heard_of_once_until_its_last_subscriber_left() {
        let mut interest = Interest::None;
        for worker in [3, 1, 3, 2] {
            interest.join(worker);
            interest.check_invariants();
        }
        assert_eq!(interest.workers().collect::<Vec<_>>(), [3, 1, 2]);
        assert_eq!(interest.subscribers(), 4);
        interest.leave(3, 1);
        assert_eq!(interest.workers().count(), 3);
        for worker in [3, 1] {
            interest.leave(worker, 1);
            interest.check_invariants();
        }
        assert!(matches!(interest, Interest::One(Share { worker: 2, subscribers: 1 })));
        interest.leave(2, 1);
        assert!(interest.is_none());
    }
}
