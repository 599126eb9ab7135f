//! A program that leads, for `elections`: `touch LABEL SOCKET` tells the resource every millisecond
//! its label and its token, the epoch or revision that it finds in its environment.

use std::{env, os::unix::net::UnixDatagram, thread::sleep, time::Duration};

fn main() {
    let mut words = env::args().skip(1);
    let (label, path) = (words.next().expect("a label"), words.next().expect("a socket"));
    let token = ["SYNOD_EPOCH", "ETCD_LOCK_REV"].iter().find_map(|name| env::var(name).ok());
    let touch = format!("{label} {}", token.unwrap_or_else(|| "0".into()));
    let resource = UnixDatagram::unbound().expect("a socket");
    loop {
        resource.send_to(touch.as_bytes(), &path).expect("the resource hears");
        sleep(Duration::from_millis(1));
    }
}
