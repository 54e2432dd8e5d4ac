//! Questions to the fleet's Prometheus.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::Value;

/// The answer to a question about this small fleet takes milliseconds.
const TO_ANSWER: Duration = Duration::from_secs(20);

/// One that serves on the loopback.
pub struct Prometheus {
    /// Its port.
    pub port: u16,
}

/// An alert as Prometheus sees it, also one that only waits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Waiting {
    /// `pending` or `firing`.
    pub state: String,
    /// With `alertname`.
    pub labels: BTreeMap<String, String>,
}

impl Prometheus {
    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// `data` of an answer.
    ///
    /// # Errors
    /// It does not answer, or with an error, which is told.
    pub fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let url = format!("{}/api/v1/{path}", self.url());
        let mut request = ureq::get(&url);
        for (name, value) in parameters {
            request = request.query(name, value);
        }
        let answer = request
            .config()
            .http_status_as_error(false)
            .timeout_global(Some(TO_ANSWER))
            .build()
            .call()
            .with_context(|| url.clone())?
            .into_body()
            .read_to_string()
            .with_context(|| url.clone())?;
        let mut answer: Value =
            serde_json::from_str(&answer).with_context(|| format!("{url}: {answer}"))?;
        if answer["status"] != "success" {
            bail!("{}: {}", answer["errorType"], answer["error"]);
        }
        Ok(answer["data"].take())
    }

    /// All alerts that are pending or firing.
    pub fn alerts(&self) -> Result<Vec<Waiting>> {
        let mut answer = self.ask("alerts", &[])?;
        serde_json::from_value(answer["alerts"].take()).context("no list of alerts")
    }
}
