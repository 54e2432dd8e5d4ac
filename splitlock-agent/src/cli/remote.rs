//! Flags of the commands that ask a running agent.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use clap::Args;

/// Where an agent serves that was not told otherwise.
pub const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9839);
/// The same as a URL.
pub const DEFAULT_URL: &str = "http://127.0.0.1:9839";

/// How to ask it. What is secret is in files: the command line of a process is everybody's to read.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "The running agent")]
pub struct RemoteOptions {
    /// File with the certificates of CAs that an agent's certificate may be from, as PEM. Without it,
    /// those that this system trusts.
    #[arg(long = "url.ca-file", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,

    /// File with a user and its password, `USER:PASSWORD`, for an agent that has users.
    #[arg(long = "url.credentials-file", value_name = "FILE")]
    pub credentials_file: Option<PathBuf>,

    /// File with a certificate to show, as PEM, for an agent that asks for one.
    #[arg(long = "url.cert-file", value_name = "FILE", requires = "key_file")]
    pub cert_file: Option<PathBuf>,

    /// File with the key of that certificate, as PEM.
    #[arg(long = "url.key-file", value_name = "FILE", requires = "cert_file")]
    pub key_file: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_is_of_the_address() {
        assert_eq!(DEFAULT_URL, format!("http://{DEFAULT_ADDRESS}"));
    }
}
