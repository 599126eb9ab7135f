//! The `synod` binary: the command line with the stock services.

use std::process::ExitCode;

use synod_kv::KvService;
use synod_routes::RoutesFollower;
use synod_web::WebService;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let program = synod::Cli::new("synod").service(KvService).service(WebService::default());
    program.follower(RoutesFollower).main()
}
