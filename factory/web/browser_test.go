package web

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gprovision/model/record"
)

// page drives a browser tab through the DevTools protocol: JSON messages, each ended by a zero byte, on a pair of
// pipes.
type page struct {
	*testing.T
	out     *os.File
	in      *bufio.Reader
	n       int
	session string
	console []string // errors in the page's console
}

// openPage starts a browser without a window.
func openPage(t *testing.T, chromium string) *page {
	t.Helper()
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--ignore-certificate-errors", "--user-data-dir="+dir, "--remote-debugging-pipe", "about:blank")
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	cmd.ExtraFiles = []*os.File{inR, outW}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stderr = io.Discard // a pipe that all its processes have open: Wait ends with the last of them, which may write to dir until then
	cmd.WaitDelay = time.Minute
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	inR.Close()
	outW.Close()
	p := &page{T: t, out: inW, in: bufio.NewReader(outR)}
	outR.SetReadDeadline(time.Now().Add(2 * time.Minute))
	t.Cleanup(func() {
		p.call("Browser.close", nil, nil)
		inW.Close()
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if err := cmd.Wait(); errors.Is(err, exec.ErrWaitDelay) {
			t.Error("processes of the browser are left")
		}
		outR.Close()
	})
	var target struct{ TargetID string }
	p.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var s struct{ SessionID string }
	p.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &s)
	p.session = s.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log"} {
		p.call(domain+".enable", nil, nil)
	}
	return p
}

// call sends a command and waits for the answer.
func (p *page) call(method string, params map[string]any, into any) {
	p.Helper()
	p.n++
	m := map[string]any{"id": p.n, "method": method, "params": params}
	if params == nil {
		m["params"] = map[string]any{}
	}
	if p.session != "" && !strings.HasPrefix(method, "Browser.") {
		m["sessionId"] = p.session
	}
	b, err := json.Marshal(m)
	if err == nil {
		_, err = p.out.Write(append(b, 0))
	}
	if err != nil {
		p.Fatalf("%s: %v", method, err)
	}
	for {
		b, err := p.in.ReadBytes(0)
		if err != nil {
			if method == "Browser.close" {
				return
			}
			p.Fatalf("%s: %v", method, err)
		}
		var a struct {
			ID     int
			Method string
			Result json.RawMessage
			Error  *struct{ Message string }
			Params struct {
				Type             string
				Entry            struct{ Level, Text, URL string }
				ExceptionDetails struct{ Text string }
			}
		}
		if err := json.Unmarshal(b[:len(b)-1], &a); err != nil {
			p.Fatal(err)
		}
		switch {
		case a.Method == "Log.entryAdded" && a.Params.Entry.Level == "error":
			p.console = append(p.console, a.Params.Entry.Text+" "+a.Params.Entry.URL)
		case a.Method == "Runtime.exceptionThrown":
			p.console = append(p.console, a.Params.ExceptionDetails.Text)
		}
		if a.ID != p.n {
			continue
		}
		if a.Error != nil {
			p.Fatalf("%s: %s", method, a.Error.Message)
		}
		if into != nil {
			if err := json.Unmarshal(a.Result, into); err != nil {
				p.Fatal(err)
			}
		}
		return
	}
}

// eval runs an expression in the page and returns its value as text.
func (p *page) eval(js string) string {
	p.Helper()
	var r struct{ Result struct{ Value any } }
	p.call("Runtime.evaluate", map[string]any{"expression": js, "awaitPromise": true, "returnByValue": true}, &r)
	return fmt.Sprint(r.Result.Value)
}

// until waits until an expression is true.
func (p *page) until(js string) {
	p.Helper()
	for end := time.Now().Add(20 * time.Second); p.eval("!!("+js+")") != "true"; {
		if time.Now().After(end) {
			p.Fatalf("never true: %s\n%s", js, p.eval("document.body ? document.body.innerText : ''"))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (p *page) open(url string) {
	p.Helper()
	p.call("Page.navigate", map[string]any{"url": url}, nil)
	p.until("document.readyState == 'complete' && location.href.startsWith(" + string(must(json.Marshal(url))) + ")")
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// shot saves a picture of the page, of the given width.
func (p *page) shot(name string, width int) {
	p.Helper()
	dir := os.Getenv("GPROV_SCREENSHOT")
	if dir == "" {
		return
	}
	p.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}, nil)
	var r struct{ Data string }
	p.call("Page.captureScreenshot", map[string]any{"captureBeyondViewport": true}, &r)
	b, err := base64.StdEncoding.DecodeString(r.Data)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name), b, 0o644)
	}
	if err != nil {
		p.Fatal(err)
	}
}

func browser(t *testing.T, s *site, chromium string) {
	p := openPage(t, chromium)
	p.open(s.url + "/login")
	p.shot("login.png", 1100)
	p.eval(`document.getElementById("password").value = ` + string(must(json.Marshal(password))) + `; document.querySelector("form button").click()`)
	p.until(`document.querySelector("h1") && document.querySelector("h1").textContent == "Units"`)
	p.until(`document.getElementById("live").className == "live on"`)
	p.shot("units.png", 1100)
	p.shot("units-phone.png", 390)
	if n := p.eval(`document.querySelector("table.units").scrollWidth > window.innerWidth`); n != "false" {
		t.Error("the list does not fit on a phone")
	}

	// A change arrives without a reload of the page.
	p.eval(`window.same = true`)
	_, err := s.db.AddEvents(t.Context(), "SN-0002", []record.Event{{Boot: "b", Seq: 99, Kind: record.KindState, Source: record.Observed,
		Attrs: record.State{Job: record.JobRestore, Phase: record.Step, Step: "write-main", Percent: 73}.Attrs()}})
	if err != nil {
		t.Fatal(err)
	}
	s.hub.Publish("SN-0002")
	p.until(`document.body.innerText.includes("write-main 73%")`)
	if p.eval(`window.same`) != "true" {
		t.Error("the page was loaded again")
	}

	p.open(s.url + "/units/SN-0055")
	p.shot("erased.png", 1100)
	p.shot("erased-phone.png", 390)
	p.open(s.url + "/erases")
	p.until(`document.querySelector("form input[type=file]") != null`)
	p.shot("erases.png", 1100)
	p.shot("erases-phone.png", 390)
	p.open(s.url + "/units/SN-0003")
	p.shot("unit.png", 1100)
	p.shot("unit-phone.png", 390)
	p.open(s.url + "/units/SN%201%2F2")
	p.eval(`window.confirm = () => true; [...document.querySelectorAll("button")].find(b => b.textContent == "Provision again").click()`)
	p.until(`document.body.innerText.includes("Released for another provisioning by admin")`)
	if u, err := s.db.Unit(t.Context(), "SN 1/2"); err != nil || u.Released.IsZero() {
		t.Error("not released", err)
	}
	if len(p.console) > 0 {
		t.Errorf("errors in the browser's console: %q", p.console)
	}
}
