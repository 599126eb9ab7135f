//! The `synod` binary: the command line with the stock services.

use std::process::ExitCode;

fn main() -> ExitCode {
    synod::Cli::new("synod").main()
}
