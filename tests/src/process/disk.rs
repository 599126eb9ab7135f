//! Small disks of their own for nodes, to be filled up.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

/// A file system mounted at a node's data directory; unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// In memory, of `size` as `mount -t tmpfs` takes it.
    ///
    /// # Errors
    /// What the machine does not allow.
    pub fn memory(at: &Path, size: &str) -> Result<Self, String> {
        Self::mount(at, &["-t", "tmpfs", "-o", &format!("size={size}"), "synod-test"])
    }

    /// A loop device with ext4 on the file `image`: a real file system, with real syncs.
    ///
    /// # Errors
    /// What the machine does not allow.
    ///
    /// # Panics
    /// When `image` cannot be written.
    pub fn device(at: &Path, image: &Path, bytes: u64) -> Result<Self, String> {
        let file = fs::File::create(image).expect("a folder of ours");
        file.set_len(bytes).expect("a sparse file takes no room");
        let image = image.to_str().expect("our names are ASCII");
        done("mkfs.ext4", Command::new("mkfs.ext4").args(["-q", "-F", image]))?;
        Self::mount(at, &["-o", "loop", image])
    }

    fn mount(at: &Path, words: &[&str]) -> Result<Self, String> {
        fs::create_dir_all(at).map_err(|error| format!("{}: {error}", at.display()))?;
        done("mount", Command::new("mount").args(words).arg(at))?;
        Ok(Self(at.to_owned()))
    }

    /// Takes all the room there is, as somebody else's file would.
    ///
    /// # Panics
    /// When there is no such disk.
    pub fn fill_up(&self) {
        let mut file = fs::File::create(self.ballast()).expect("a disk of ours");
        let block = vec![0; 64 << 10];
        while file.write_all(&block).is_ok() {}
        while file.write_all(&block[..4096]).is_ok() {}
    }

    /// Undoes [`SmallDisk::fill_up`].
    ///
    /// # Panics
    /// When it was not done.
    pub fn make_room(&self) {
        fs::remove_file(self.ballast()).expect("it was filled up");
    }

    /// From now on whoever writes or syncs there waits, as on a disk that hangs. Not on one in memory.
    ///
    /// # Errors
    /// What the machine does not allow.
    pub fn hang(&self) -> Result<(), String> {
        done("fsfreeze", Command::new("fsfreeze").arg("--freeze").arg(&self.0))
    }

    /// Undoes [`SmallDisk::hang`].
    ///
    /// # Errors
    /// When it does not hang.
    pub fn go_on(&self) -> Result<(), String> {
        done("fsfreeze", Command::new("fsfreeze").arg("--unfreeze").arg(&self.0))
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whoever waits for a disk that hangs could not even be killed.
        self.go_on().ok();
        // Lazily: a test that failed may still have a node on it.
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

/// Runs a command of the system that needs rights or tools this machine may not give.
pub(super) fn done(what: &str, command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{what}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let why = || format!("{command:?}: {}", said.trim());
    if output.status.success() { Ok(()) } else { Err(why()) }
}
