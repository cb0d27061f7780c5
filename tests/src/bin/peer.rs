//! A program for containers on a network: `peer listen PORT` sends its host name to every client, `peer ask HOST
//! PORT` asks until it is answered.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["listen", port] => {
            let listener = TcpListener::bind(("0.0.0.0", port.parse()?))?;
            println!("listening");
            for stream in listener.incoming() {
                stream?.write_all(std::fs::read_to_string("/proc/sys/kernel/hostname")?.as_bytes())?;
            }
        }
        ["ask", host, port] => {
            let deadline = Instant::now() + Duration::from_secs(10);
            let mut stream = loop {
                match TcpStream::connect((*host, port.parse()?)) {
                    Ok(stream) => break stream,
                    Err(error) if Instant::now() > deadline => return Err(error.into()),
                    Err(_) => std::thread::sleep(Duration::from_millis(20)),
                }
            };
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            print!("{answer}");
        }
        _ => return Err("peer listen PORT, or peer ask HOST PORT".into()),
    }
    Ok(())
}
