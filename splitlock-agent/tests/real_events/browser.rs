//! A headless Chromium, driven over its DevTools protocol.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpStream,
    path::PathBuf,
    process::{Child as Process, Command, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc::channel,
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use super::requirements;

/// For anything that the browser is to do.
const DEADLINE: Duration = Duration::from_secs(60);
/// For a call's answer: shorter, so that a condition is looked at again.
const SILENCE: Duration = Duration::from_secs(30);

/// A browser with one tab. It ends with this value, and its data go with it.
pub struct Browser {
    process: Process,
    folder: PathBuf,
    socket: WebSocket<TcpStream>,
    session: Option<String>,
    calls: u64,
    /// What the page was heard to complain of.
    complaints: Vec<String>,
}

impl Browser {
    /// Starts one whose tab has this size, and opens an address in it.
    #[track_caller]
    pub fn open(url: &str, (width, height): (u32, u32)) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("splitlock-browser-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).expect("a new folder");
        let mut process = Command::new(requirements::chromium().expect("checked"))
            .args(["--headless", "--no-sandbox", "--disable-gpu"])
            .args(["--disable-quic", "--no-first-run", "--disable-sync"])
            .args(["--disable-background-networking"])
            .args(["--disable-component-update", "--hide-scrollbars"])
            // A container's /dev/shm may be small.
            .arg("--disable-dev-shm-usage")
            .arg("--remote-debugging-port=0")
            .arg(format!("--user-data-dir={}", folder.display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("chromium starts");
        let stderr = process.stderr.take().expect("stderr is a pipe");
        let (sender, addresses) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(address) = line.strip_prefix("DevTools listening on ") {
                    let _ = sender.send(address.to_owned());
                }
            }
        });
        let connected = addresses
            .recv_timeout(DEADLINE)
            .map_err(|error| error.to_string())
            .and_then(|address| connect(&address));
        let socket = match connected {
            Ok(socket) => socket,
            Err(error) => {
                end(&mut process, &folder);
                panic!("chromium does not listen: {error}");
            }
        };
        let mut browser = Self {
            process,
            folder,
            socket,
            session: None,
            calls: 0,
            complaints: vec![],
        };
        browser.open_tab(url, width, height);
        browser
    }

    fn open_tab(&mut self, url: &str, width: u32, height: u32) {
        let target = self.call("Target.createTarget", json!({"url": "about:blank"}));
        let attached = self.call(
            "Target.attachToTarget",
            json!({"targetId": target["targetId"], "flatten": true}),
        );
        self.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Accessibility", "DOM"] {
            self.call(&format!("{domain}.enable"), json!({}));
        }
        self.resize(width, height);
        self.call("Page.navigate", json!({"url": url}));
    }

    /// Gives the tab another size, in CSS pixels.
    pub fn resize(&mut self, width: u32, height: u32) {
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}),
        );
    }

    /// Calls a method and gives its result.
    #[track_caller]
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let id = self.calls;
        let mut message = json!({"id": id, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.socket
            .send(Message::text(message.to_string()))
            .unwrap_or_else(|error| panic!("{method}: {error}"));
        loop {
            let answer = self
                .socket
                .read()
                .unwrap_or_else(|error| panic!("{method}: {error}"));
            let Message::Text(text) = answer else {
                continue;
            };
            let value: Value = serde_json::from_str(&text).expect("the protocol is JSON");
            if value["id"] == id {
                assert_eq!(value.get("error"), None, "{method}: {value:#}");
                return value["result"].clone();
            }
            self.hear(&value);
        }
    }

    /// Keeps errors of the page's script, and what the browser refused to it.
    fn hear(&mut self, event: &Value) {
        let parameters = &event["params"];
        let complaint = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => &parameters["exceptionDetails"],
            Some("Runtime.consoleAPICalled") if parameters["type"] == "error" => parameters,
            Some("Log.entryAdded") if parameters["entry"]["level"] == "error" => {
                &parameters["entry"]
            }
            _ => return,
        };
        self.complaints.push(complaint.to_string());
    }

    /// The value of an expression, which may be a promise.
    #[track_caller]
    pub fn eval(&mut self, expression: &str) -> Value {
        let result = self.call(
            "Runtime.evaluate",
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true}),
        );
        assert_eq!(
            result.get("exceptionDetails"),
            None,
            "{expression}: {result:#}"
        );
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub fn wait_for(&mut self, expression: &str) {
        let start = Instant::now();
        while self.eval(&format!("(async () => Boolean(await ({expression})))()")) != json!(true) {
            if start.elapsed() > DEADLINE {
                let text = self.eval("document.body.innerText");
                panic!("{expression} did not come: {}", text.as_str().unwrap_or(""));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Presses and releases a key: `Tab`, `Enter`, or a character.
    pub fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Tab" => (9, ""),
            character => (0, character),
        };
        let mut down = json!({"type": "keyDown", "key": key, "windowsVirtualKeyCode": code});
        if !text.is_empty() {
            down["text"] = json!(text);
        }
        self.call("Input.dispatchKeyEvent", down);
        self.call(
            "Input.dispatchKeyEvent",
            json!({"type": "keyUp", "key": key, "windowsVirtualKeyCode": code}),
        );
    }

    /// Types a text where the focus is.
    pub fn type_text(&mut self, text: &str) {
        for character in text.chars() {
            self.press(&character.to_string());
        }
    }

    /// A picture of the tab as PNG, in base64.
    pub fn picture(&mut self) -> String {
        let shot = self.call("Page.captureScreenshot", json!({"format": "png"}));
        shot["data"].as_str().expect("a picture").to_owned()
    }

    /// What went wrong so far, by the page's console.
    pub fn complaints(&mut self) -> &[String] {
        // What was said before the answer has been heard with it.
        self.eval("0");
        &self.complaints
    }

    /// Forgets complaints that a test has brought about.
    pub fn forget_complaints(&mut self) {
        self.eval("0");
        self.complaints.clear();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        end(&mut self.process, &self.folder);
    }
}

/// Ends a browser; its own children notice that it has gone.
fn end(process: &mut Process, folder: &PathBuf) {
    // It may have ended by itself; its folder goes in any case.
    let _ = process.kill();
    let _ = process.wait();
    for _ in 0..50 {
        // A child that still writes makes this fail.
        if fs::remove_dir_all(folder).is_ok() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn connect(address: &str) -> Result<WebSocket<TcpStream>, String> {
    let host = address
        .strip_prefix("ws://")
        .and_then(|rest| rest.split('/').next())
        .ok_or_else(|| format!("an address: {address}"))?;
    let stream = TcpStream::connect(host).map_err(|error| error.to_string())?;
    stream
        .set_read_timeout(Some(SILENCE))
        .map_err(|error| error.to_string())?;
    let (socket, _) = tungstenite::client(address, stream).map_err(|error| error.to_string())?;
    Ok(socket)
}
