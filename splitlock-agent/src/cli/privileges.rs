//! Flags of what rights the agent keeps.

use clap::{Args, ValueEnum};

/// What becomes of the rights that it was started with.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Privileges")]
pub struct PrivilegeOptions {
    /// What becomes of the rights that the agent was started with, once everything is attached. `drop`
    /// gives them up, and leaves the right to look into other processes to one that does nothing else;
    /// `keep` is for debugging.
    #[arg(
        long = "privileges",
        value_name = "WHAT",
        value_enum,
        default_value_t = Privileges::Drop
    )]
    pub privileges: Privileges,

    /// The user that the agent becomes, a name of /etc/passwd or a number; without it
    /// `splitlock-agent` where there is such an account, else 65519, which is nobody's.
    #[arg(long = "privileges.user", value_name = "USER")]
    pub user: Option<String>,
}

/// What becomes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Privileges {
    /// They are given up.
    Drop,
    /// They stay.
    Keep,
}
