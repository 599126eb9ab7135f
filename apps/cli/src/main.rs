//! The `synod` binary: the command line with the stock services.

use std::process::ExitCode;

use synod_kv::KvService;
use synod_routes::RoutesFollower;
use synod_web::WebService;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Before the allocator takes its first area: it asks for pages of 2 MiB, of which a small node keeps
/// three that it does not need. Whether they are allowed again, `synod node` decides.
#[cfg(all(feature = "mimalloc", target_os = "linux"))]
#[used]
#[expect(unsafe_code, reason = "the only place before `main`")]
// SAFETY: the loader calls it once, before `main`; it touches nothing that is not set up by then.
#[unsafe(link_section = ".init_array.00001")]
static WITHOUT_HUGE_PAGES: extern "C" fn() = {
    extern "C" fn deny() {
        let none = libc::c_ulong::default();
        // SAFETY: it sets a property of this process and reads no memory of ours.
        let _ =
            unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1 as libc::c_ulong, none, none, none) };
    }
    deny
};

fn main() -> ExitCode {
    let program = synod::Cli::new("synod").service(KvService).service(WebService::default());
    program.follower(RoutesFollower).main()
}
