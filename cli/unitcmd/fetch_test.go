package unitcmd

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"

	"gprovision/model/fault"
	"gprovision/model/policy"
	"gprovision/unit/image/imagetest"
	"gprovision/unit/state"
)

// The images themselves are the business of unit/update: here it is who may ask, by which rules, and what becomes of the volume.
func TestFetch(t *testing.T) {
	f := newFake(t)
	asked := ""
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked = r.URL.Path; http.NotFound(w, r) }))
	defer s.Close()
	address, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	const image = "WIDGET.LNX.SHINY.2026-11-23.0001.upd"
	if code := f.run("fetch", s.URL+"/"+image); code != 1 || !strings.Contains(f.err.String(), "G282") {
		t.Errorf("no policy: exit status %d: %s", code, f.err.String())
	}
	p := policy.Policy{Version: 1, Keys: []string{"RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"}}
	set := func() {
		b, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		f.put(t, state.PolicyFile, string(b))
	}
	set()
	if code := f.run("fetch", s.URL+"/"+image); code != 1 || !strings.Contains(f.err.String(), "G281") || asked != "" {
		t.Errorf("another host: exit status %d, asked for %q: %s", code, asked, f.err.String())
	}
	if got := strings.Join(f.ops, ","); got != "rw,ro" {
		t.Errorf("mounts: %s", got)
	}
	p.FetchHosts, p.FetchCA = []string{address.Host}, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	set()
	if code := f.run("fetch", s.URL+"/"+image); code != 1 || !strings.Contains(f.err.String(), "G203") || asked != "/"+image+".minisig" {
		t.Errorf("no signature: exit status %d, asked for %q: %s", code, asked, f.err.String())
	}
	if code := f.run("fetch", s.URL+"/nonsense.upd"); code != 1 || !strings.Contains(f.err.String(), "G202") {
		t.Errorf("exit status %d: %s", code, f.err.String())
	}
	f.put(t, state.PolicyFile, `{"version":1,"keys":["nonsense"]}`)
	if code := f.run("fetch", "/x/"+image); code != 1 || !strings.Contains(f.err.String(), "G282") {
		t.Errorf("a bad key: exit status %d: %s", code, f.err.String())
	}
	f.uid = 1000
	if code := f.run("fetch", "/x/"+image); code != 1 || len(f.ops) > 0 {
		t.Errorf("without rights: %d, %q", code, f.ops)
	}
}

// TestFetchTooLarge: an image that the main system has no room for is refused before anybody trusts that a restore can use it.
func TestFetchTooLarge(t *testing.T) {
	f := newFake(t)
	from := imagetest.New(t)
	b, err := policy.Policy{Version: 1, Keys: []string{from.Key.Public().String()}}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	f.put(t, state.PolicyFile, string(b))
	f.put(t, "mnt/RECOVERY/"+f.Site.Names.BootFile, string(imagetest.BzImage(5, "")))
	for base, c := range map[string]struct {
		blocks int64
		code   int
	}{imagetest.Prefix + "2026-11-23.0001": {1 << 50, 1}, imagetest.Prefix + "2026-11-24.0001": {1, 0}} {
		meta := fmt.Sprintf(`{"version":1,"name":%q,"build":1,"bytes":2048,"inodes":1,"blocks":%d}`, base, c.blocks)
		im := from.Put(t, base+".upd", base, imagetest.WithArtifact(t, meta, imagetest.BzImage(7, "")))
		if code := f.run("fetch", im.Path); code != c.code || strings.Contains(f.err.String(), fault.DiskTooSmall.Code) != (code == 1) {
			t.Errorf("%d blocks: exit status %d: %s", c.blocks, code, f.err.String())
		}
		if _, err := os.Stat(f.volume().Path(state.ImageDir, base+".upd")); (err == nil) != (c.code == 0) {
			t.Errorf("%d blocks: on the volume: %v", c.blocks, err)
		}
	}
}

func TestProgress(t *testing.T) {
	var b bytes.Buffer
	p := &progress{w: &b}
	for i := range 101 {
		p.show("fetch", int64(i), 100)
	}
	p.show("check", 0, 0)
	p.show("check", 150<<20, 0)
	p.end()
	if got := strings.Fields(strings.ReplaceAll(b.String(), "\n", " ")); len(got) != 3*13 || !strings.HasSuffix(b.String(), "fetch 100 %\ncheck 0 MiB\ncheck 100 MiB\n") {
		t.Errorf("got %q", b.String())
	}
	b.Reset()
	p = &progress{w: &b, terminal: true}
	p.show("fetch", 1, 2)
	p.end()
	if b.String() != "\r\x1b[Kfetch 50 %\n" {
		t.Errorf("got %q", b.String())
	}
}

// A verb that writes for long, such as fetch, keeps no other from writing, and the last one makes the volume read-only again.
func TestWritersShareTheVolume(t *testing.T) {
	f := newFake(t)
	release, err := f.writable()
	if err != nil {
		t.Fatal(err)
	}
	if f.ops = nil; f.run("boot-ok", "--wait", "0s") != 0 || len(f.ops) > 0 || f.readOnly {
		t.Errorf("beside another: mounts %q, read-only %v: %s", f.ops, f.readOnly, f.err.String())
	}
	other, err := f.writable()
	if err != nil {
		t.Fatal(err)
	}
	if err := release(); err != nil || f.readOnly {
		t.Errorf("read-only under a writer: %v, %v", f.readOnly, err)
	}
	if err := other(); err != nil || !f.readOnly {
		t.Errorf("still writable: %v", err)
	}
	// One that was mounted writable stays so.
	f.readOnly = false
	if f.run("boot-ok", "--wait", "0s") != 0 || len(f.ops) > 0 {
		t.Errorf("mounts %q: %s", f.ops, f.err.String())
	}
	// A writer that was killed leaves it writable: the next one tidies up.
	f.readOnly = true
	l, err := f.lock("writers", syscall.LOCK_SH)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.makeWritable(l); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if f.run("boot-ok", "--wait", "0s") != 0 || !f.readOnly {
		t.Errorf("after a writer that was killed: mounts %q, read-only %v", f.ops, f.readOnly)
	}
}
