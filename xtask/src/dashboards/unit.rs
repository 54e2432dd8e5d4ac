//! Grafana's names of the units that the dashboards use.

/// A number of things.
pub const COUNT: &str = "short";
/// Things per second.
pub const PER_SECOND: &str = "cps";
/// A time in seconds.
pub const SECONDS: &str = "s";
/// A point in time, in milliseconds since 1970, shown as how long ago.
pub const AGO: &str = "dateTimeFromNow";
/// A share, 0 to 1.
pub const SHARE: &str = "percentunit";
/// Bytes, in powers of 1024.
pub const BYTES: &str = "bytes";
/// What is shown is a name, not the number.
pub const NAME: &str = "none";
/// Text, also where it looks like a number: a pid, a VM that is called 10000.
pub const TEXT: &str = "string";

/// All of them.
#[cfg(test)]
pub const ALL: &[&str] = &[COUNT, PER_SECOND, SECONDS, AGO, SHARE, BYTES, NAME, TEXT];
