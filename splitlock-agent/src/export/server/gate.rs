//! What every request passes before a route sees it: only GET and HEAD, no body, no more than the
//! configured rate, and from a user where there are users.

use std::{convert::Infallible, sync::Arc, time::Instant};

use axum::{
    body::Body,
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use hyper::{
    Request,
    body::{Body as _, Incoming},
};
use tracing::debug;

use super::{
    RETRY_AFTER,
    authentication::{Authentication, Verdict},
    bucket::Bucket,
    peer::Peer,
    refusals::{Cause, Refusals},
};
use crate::export::web_config::{Live, Tls, WebConfig};

/// The path that needs no user: it tells that the agent works, and nothing else.
const OPEN_PATH: &str = "/healthz";
/// What a client is asked for. It does not learn by whom.
const CHALLENGE: &str = r#"Basic realm="metrics", charset="UTF-8""#;
/// What may be done.
const ALLOWED: &str = "GET, HEAD";

/// Before the routes.
pub struct Gate {
    config: Arc<Live>,
    refusals: Arc<Refusals>,
    authentication: Authentication,
    bucket: Bucket,
}

impl Gate {
    /// As the configuration has it.
    pub fn new(config: Arc<Live>, refusals: Arc<Refusals>) -> Self {
        Self {
            config,
            authentication: Authentication::new(Arc::clone(&refusals)),
            refusals,
            bucket: Bucket::default(),
        }
    }

    /// TLS for a new connection; nothing for plain HTTP. A Unix socket stays in this host's memory.
    pub fn tls(&self, peer: Peer) -> Option<Tls> {
        match peer {
            Peer::Address(_) => self.config.get().tls.clone(),
            Peer::User(_) => None,
        }
    }

    /// Counts what was refused before there was a request.
    pub fn refuse(&self, cause: Cause) {
        self.refusals.add(cause);
    }

    /// Answers a request, by the routes if it passes.
    pub async fn answer<F>(
        &self,
        peer: Peer,
        request: Request<Incoming>,
        route: impl FnOnce(Request<Incoming>) -> F,
    ) -> Response
    where
        F: Future<Output = Result<Response, Infallible>>,
    {
        let config = self.config.get();
        let is_open = request.uri().path() == OPEN_PATH;
        let mut response = match self.check(&config, peer, &request, is_open).await {
            Err(refusal) => refusal,
            Ok(()) => {
                let Ok(response) = route(request).await;
                if is_open && !response.status().is_success() && config.asks_who() {
                    // Why it does not work is for users, at /readyz.
                    (response.status(), "not ok\n").into_response()
                } else {
                    response
                }
            }
        };
        for (name, value) in &config.headers {
            response.headers_mut().insert(name, value.clone());
        }
        response
    }

    async fn check(
        &self,
        config: &WebConfig,
        peer: Peer,
        request: &Request<Incoming>,
        is_open: bool,
    ) -> Result<(), Response> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            self.refusals.add(Cause::Method);
            let mut refusal = last(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            let allowed = HeaderValue::from_static(ALLOWED);
            refusal.headers_mut().insert(header::ALLOW, allowed);
            return Err(refusal);
        }
        if has_body(request) {
            self.refusals.add(Cause::Body);
            return Err(last(
                StatusCode::BAD_REQUEST,
                "no request here has a body\n",
            ));
        }
        if let Some(rate) = config.rate
            && !self.bucket.take(rate, Instant::now())
        {
            self.refusals.add(Cause::Rate);
            return Err(later(StatusCode::TOO_MANY_REQUESTS, "too many requests\n"));
        }
        if is_open {
            return Ok(());
        }
        let wants_certificate = config.tls.as_ref().is_some_and(Tls::requires_certificate);
        if wants_certificate && matches!(peer, Peer::User(_)) {
            let text =
                "the web configuration asks for a certificate, which a Unix socket has none of\n";
            return Err((StatusCode::FORBIDDEN, text).into_response());
        }
        if config.users.is_empty() {
            return Ok(());
        }
        let verdict = self
            .authentication
            .judge(&config.users, peer, request.headers())
            .await;
        let refusal = match verdict {
            Verdict::Right => return Ok(()),
            Verdict::Wrong => {
                let challenge = [(header::WWW_AUTHENTICATE, CHALLENGE)];
                (StatusCode::UNAUTHORIZED, challenge, "unauthorized\n").into_response()
            }
            Verdict::TooOften => {
                self.refusals.add(Cause::Unchecked);
                later(
                    StatusCode::TOO_MANY_REQUESTS,
                    "too many wrong credentials\n",
                )
            }
            Verdict::Busy => {
                self.refusals.add(Cause::Unchecked);
                later(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "too many credentials to check\n",
                )
            }
        };
        debug!(client = %peer, ?verdict, "refused");
        Err(refusal)
    }
}

/// Whether a request has a body, or says that it may: both ways of telling its length are none of
/// ours, so that nobody in between can see the end of a request elsewhere.
fn has_body(request: &Request<Incoming>) -> bool {
    let head = request.headers();
    let lengths = head.get_all(header::CONTENT_LENGTH);
    !request.body().is_end_stream()
        || head.contains_key(header::TRANSFER_ENCODING)
        || lengths.iter().any(|length| length != "0")
}

/// An answer after which the connection ends: nobody reads what the client still sends.
fn last(status: StatusCode, text: &'static str) -> Response<Body> {
    (status, [(header::CONNECTION, "close")], text).into_response()
}

fn later(status: StatusCode, text: &'static str) -> Response<Body> {
    (status, [(header::RETRY_AFTER, RETRY_AFTER)], text).into_response()
}
