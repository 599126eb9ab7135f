//! Clients: as much of RESP as the measurement needs. What arrives together is begun together, and
//! answered in order.

use std::{io, sync::Arc};

use futures_util::future::join_all;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
};

use crate::{Call, Node, Result, Set};

/// Calls of one client under way at once.
const TOGETHER: usize = 64;

pub async fn serve(node: Arc<Node>, at: &str) -> Result<()> {
    let listener = TcpListener::bind(at).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(client(node.clone(), stream));
    }
}

async fn client(node: Arc<Node>, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut calls = vec![next(&mut read).await?];
        while !read.buffer().is_empty() && calls.len() < TOGETHER {
            calls.push(next(&mut read).await?);
        }
        let replies = join_all(calls.into_iter().map(|words| reply(&node, words))).await;
        write.write_all(&replies.concat()).await?;
    }
}

async fn reply(node: &Node, words: Vec<Vec<u8>>) -> Vec<u8> {
    let mut words = words.into_iter();
    let verb = words.next().unwrap_or_default().to_ascii_uppercase();
    let call = match (&verb[..], words.next(), words.next()) {
        (b"SET", Some(key), Some(value)) => Call::Set(Set { key, value }),
        (b"GET", Some(key), None) => Call::Get(key),
        (b"LEADER", None, None) => {
            let leader = node.raft.current_leader().await.unwrap_or(0);
            return format!(":{leader}\r\n").into_bytes();
        }
        _ => return b"-ERR unknown command\r\n".to_vec(),
    };
    let sets = matches!(call, Call::Set(_));
    match node.call(call).await {
        Ok(_) if sets => b"+OK\r\n".to_vec(),
        Ok(Some(value)) => [format!("${}\r\n", value.len()).as_bytes(), &value, b"\r\n"].concat(),
        Ok(None) => b"$-1\r\n".to_vec(),
        Err(error) => format!("-ERR {error}\r\n").replace('\n', " ").into_bytes(),
    }
}

/// One command: an array of bulk strings.
async fn next(read: &mut BufReader<OwnedReadHalf>) -> io::Result<Vec<Vec<u8>>> {
    let count = number(read, b'*').await?;
    let mut words = Vec::new();
    for _ in 0..count {
        let len = number(read, b'$').await?;
        let mut word = vec![0; len + 2];
        read.read_exact(&mut word).await?;
        word.truncate(len);
        words.push(word);
    }
    Ok(words)
}

/// More than the measurement sends.
const MOST: usize = 1 << 20;

async fn number(read: &mut BufReader<OwnedReadHalf>, kind: u8) -> io::Result<usize> {
    let mut line = String::new();
    if read.read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let number = line.strip_prefix(char::from(kind)).and_then(|text| text.trim().parse().ok());
    number.filter(|number| *number <= MOST).ok_or_else(|| io::ErrorKind::InvalidData.into())
}
