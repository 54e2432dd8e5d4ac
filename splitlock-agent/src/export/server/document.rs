//! The page as an answer: the same for all, so that it needs no snapshot and no place in the budget.

use std::io;

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;

use super::{gzip, packed};
use crate::export::page::Page;

/// Headers that are the same for every answer with the page. A browser is to ask again after an
/// update of the agent, and to tell no other site where the page is.
const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    ),
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    ),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
];

/// The page, ready to be sent.
#[derive(Clone)]
pub struct Document {
    plain: Bytes,
    packed: Bytes,
    policy: HeaderValue,
}

impl Document {
    /// The page with a link to the metrics.
    pub fn new(telemetry_path: &str) -> io::Result<Self> {
        let Page { html, policy } = Page::new(telemetry_path);
        Ok(Self {
            packed: gzip::pack(&html)?.into(),
            plain: html,
            policy: HeaderValue::try_from(policy).map_err(io::Error::other)?,
        })
    }

    /// An answer, with gzip where the client takes it.
    pub fn show(&self, asked: &HeaderMap) -> Response {
        let gzip = gzip::is_taken(asked);
        let body = if gzip { &self.packed } else { &self.plain };
        let policy = [(header::CONTENT_SECURITY_POLICY, self.policy.clone())];
        (HEADERS, policy, packed(body.clone(), gzip)).into_response()
    }
}
