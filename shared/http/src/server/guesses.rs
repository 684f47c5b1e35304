//! Slows down clients that try tokens.
//!
//! Tokens cannot be guessed, so this is no protection of them. It keeps a client that tries anyway,
//! or that has a wrong token and repeats its request in a loop, from filling logs and taking time.
//! Only answers that refuse a token wait, never others: behind a proxy all clients have one
//! address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::http::Response;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::tokens::RefusedToken;

/// Refused tokens of one address within [`WINDOW`] that are answered at once.
const FREE: u32 = 10;

/// For how long refused tokens are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// How long a further answer waits.
const DELAY: Duration = Duration::from_secs(1);

/// Addresses that are counted one by one. All others share one count.
const MAX_ADDRESSES: usize = 1024;

/// Refused tokens by address. Touched only when a token is refused.
#[derive(Debug, Default)]
pub(super) struct Guesses(Mutex<HashMap<IpAddr, Count>>);

#[derive(Debug)]
struct Count {
    since: Instant,
    refused: u32,
}

impl Guesses {
    /// Counts one more; whether its answer must wait.
    fn note(&self, address: IpAddr, now: Instant) -> bool {
        let mut counts = self.0.lock();
        let is_over = |count: &Count| now.saturating_duration_since(count.since) >= WINDOW;
        let mut address = group(address);
        if counts.len() >= MAX_ADDRESSES && !counts.contains_key(&address) {
            counts.retain(|_, count| !is_over(count));
            if counts.len() >= MAX_ADDRESSES {
                address = OTHERS;
            }
        }

        let count = counts.entry(address).or_insert(Count {
            since: now,
            refused: 0,
        });
        if is_over(count) {
            *count = Count {
                since: now,
                refused: 0,
            };
        }
        count.refused = count.refused.saturating_add(1);
        count.refused > FREE
    }
}

/// The count of addresses beyond the limit.
const OTHERS: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// The addresses that are counted together: a client of IPv6 usually has all of a /64.
fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// The client of one connection.
#[derive(Debug)]
pub(super) struct Client {
    address: IpAddr,
    guesses: Arc<Guesses>,
}

impl Client {
    pub(super) fn new(address: IpAddr, guesses: Arc<Guesses>) -> Self {
        Self { address, guesses }
    }

    /// How long this answer must wait, if it must.
    pub(super) fn delay<B>(&self, answer: &Response<B>) -> Option<Duration> {
        answer.extensions().get::<RefusedToken>()?;
        let must_wait = self.guesses.note(self.address, Instant::now());
        must_wait.then_some(DELAY)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn only_the_address_that_guesses_waits_and_only_for_a_while() {
        let guesses = Guesses::default();
        let begin = Instant::now();
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());

        let waits: Vec<bool> = (0..12).map(|_| guesses.note(one, begin)).collect();

        assert_eq!(waits, [vec![false; 10], vec![true; 2]].concat());
        assert!(!guesses.note(other, begin));
        assert!(guesses.note(one, begin + WINDOW / 2));
        assert!(!guesses.note(one, begin + WINDOW));
    }

    #[test]
    fn addresses_of_one_network_are_counted_together() {
        let address = |text: &str| group(text.parse().unwrap());

        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:1"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
    }

    #[test]
    fn many_addresses_take_bounded_memory() {
        let guesses = Guesses::default();
        let begin = Instant::now();

        for number in 0..10 * MAX_ADDRESSES as u32 {
            guesses.note(IpAddr::V4(Ipv4Addr::from_bits(number)), begin);
        }

        assert_eq!(guesses.0.lock().len(), MAX_ADDRESSES + 1);
        let stranger = IpAddr::V4(Ipv4Addr::BROADCAST);
        assert!(guesses.note(stranger, begin));
        assert!(!guesses.note(stranger, begin + WINDOW));
        assert_eq!(guesses.0.lock().len(), 1);
    }
}
