//! What clients were refused, by cause.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A connection had to make room for another.
    Connection,
    /// The client did not come to terms on TLS, or not in time.
    Handshake,
    /// A method that is neither GET nor HEAD.
    Method,
    /// A body, which no request here has.
    Body,
    /// The configured rate of requests.
    Rate,
    /// Wrong credentials, or none of a user's that were checked.
    Credentials,
    /// Credentials that were not checked: too many were wrong before, or too many wait.
    Unchecked,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Connection,
        Self::Handshake,
        Self::Method,
        Self::Body,
        Self::Rate,
        Self::Credentials,
        Self::Unchecked,
    ];

    /// In the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection_limit",
            Self::Handshake => "tls_handshake",
            Self::Method => "method",
            Self::Body => "body",
            Self::Rate => "rate_limit",
            Self::Credentials => "credentials",
            Self::Unchecked => "credentials_unchecked",
        }
    }
}

/// How often, since the start.
#[derive(Default)]
pub struct Refusals([AtomicU64; Cause::ALL.len()]);

impl Refusals {
    /// Counts one.
    pub fn add(&self, cause: Cause) {
        self.0[cause as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// All counts.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Cause::ALL
            .into_iter()
            .map(|cause| (cause.name(), self.0[cause as usize].load(Ordering::Relaxed)))
    }
}
