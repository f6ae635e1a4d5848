package record

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestEventJSON(t *testing.T) {
	e := Event{Unit: "S1", Boot: "b-1", Seq: 7, Time: time.Date(2026, 11, 22, 1, 2, 3, 0, time.UTC), Kind: KindState, Source: Observed,
		Attrs: State{Job: JobRestore, Phase: Step, Step: "write-main", Percent: 40}.Attrs()}
	if err := e.Validate(); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var back Event
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	for _, v := range []Event{e, back} {
		s, ok := StateOf(v)
		if !ok || s.String() != "restore: write-main 40%" {
			t.Errorf("state of %v is %q, %v", v, s, ok)
		}
	}
}

func TestStateWords(t *testing.T) {
	for want, s := range map[string]State{
		"unknown":             {},
		"provision started":   {Job: JobProvision, Phase: Started, Percent: -1},
		"boot: find-root":     {Job: JobBoot, Phase: Step, Step: "find-root", Percent: -1},
		"restore failed":      {Job: JobRestore, Phase: Failed, Code: "G205"},
		"provision succeeded": {Job: JobProvision, Phase: Succeeded, Percent: 100},
		"running":             {Job: JobRunning},
	} {
		if got := s.String(); got != want {
			t.Errorf("%#v: %q, want %q", s, got, want)
		}
	}
	if _, ok := StateOf(Event{Kind: KindLog}); ok {
		t.Error("a log record has a state")
	}
	if _, ok := StateOf(Event{Kind: KindState, Attrs: map[string]any{"job": 7}}); ok {
		t.Error("a number as job is a state")
	}
}

func TestEventLimits(t *testing.T) {
	good := Event{Boot: "b", Seq: 1, Kind: KindLog, Source: Observed}
	for name, change := range map[string]func(*Event){
		"unit":    func(e *Event) { e.Unit = "a\nb" },
		"boot":    func(e *Event) { e.Boot = "" },
		"boot2":   func(e *Event) { e.Boot = "a/b" },
		"seq":     func(e *Event) { e.Seq = 0 },
		"kind":    func(e *Event) { e.Kind = "x" },
		"source":  func(e *Event) { e.Source = "" },
		"level":   func(e *Event) { e.Level = strings.Repeat("x", 17) },
		"message": func(e *Event) { e.Message = strings.Repeat("x", MaxMessage+1) },
	} {
		e := good
		change(&e)
		if e.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	e := good
	e.Message = strings.Repeat("é", MaxMessage)
	e.Attrs = map[string]any{"x": strings.Repeat("y", MaxEvent), "f": 1}
	e = e.Trim()
	if err := e.Validate(); err != nil {
		t.Error(err)
	}
	b, _ := json.Marshal(e)
	if len(b) > MaxEvent {
		t.Errorf("trimmed event has %d bytes", len(b))
	}
	e.Attrs = map[string]any{"f": func() {}}
	if _, err := json.Marshal(e.Trim()); err != nil {
		t.Errorf("attributes that cannot be encoded stay: %v", err)
	}
}

func TestSign(t *testing.T) {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	here, there := BodyHash([]byte("one server")), BodyHash([]byte("another"))
	now := time.Date(2026, 11, 22, 1, 2, 3, 4, time.UTC)
	headers := func() http.Header {
		h := http.Header{}
		for k, v := range SignRequest(key, here, "POST", "/v1/events?x=1", "S 1", now, []byte("body")) {
			h.Set(k, v)
		}
		return h
	}
	s, err := ParseStamp(headers().Get)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(pub, here, "POST", "/v1/events?x=1", now.Add(time.Minute)); err != nil || s.Hash != BodyHash([]byte("body")) || s.Scheme != SchemeV2 {
		t.Error(s, err)
	}
	with := func(change func(*Stamp)) Stamp {
		c := s
		change(&c)
		return c
	}
	other, _, _ := ed25519.GenerateKey(nil)
	for name, got := range map[string]error{
		"method": s.Verify(pub, here, "PUT", "/v1/events?x=1", now),
		"path":   s.Verify(pub, here, "POST", "/v1/events?x=2", now),
		"key":    s.Verify(other, here, "POST", "/v1/events?x=1", now),
		"no key": s.Verify(nil, here, "POST", "/v1/events?x=1", now),
		"unit":   with(func(c *Stamp) { c.Unit = "S 2" }).Verify(pub, here, "POST", "/v1/events?x=1", now),
		"time":   with(func(c *Stamp) { c.Time = c.Time.Add(time.Second) }).Verify(pub, here, "POST", "/v1/events?x=1", now),
		"body":   with(func(c *Stamp) { c.Hash = BodyHash([]byte("bodY")) }).Verify(pub, here, "POST", "/v1/events?x=1", now),
		"scheme": with(func(c *Stamp) { c.Scheme = SchemeV1 }).Verify(pub, here, "POST", "/v1/events?x=1", now),
		// Who relays a request of another server and writes his own audience over it changes what was signed.
		"audience": with(func(c *Stamp) { c.Audience = there }).Verify(pub, there, "POST", "/v1/events?x=1", now),
	} {
		if !errors.Is(got, ErrSignature) {
			t.Errorf("another %s: %v", name, got)
		}
	}
	if err := s.Verify(pub, there, "POST", "/v1/events?x=1", now); !errors.Is(err, ErrAudience) {
		t.Error("at another server:", err)
	}
	for _, d := range []time.Duration{MaxSkew + time.Second, -MaxSkew - time.Second} {
		if err := s.Verify(pub, here, "POST", "/v1/events?x=1", now.Add(d)); !errors.Is(err, ErrClock) {
			t.Errorf("clock off by %v: %v", d, err)
		}
	}
	for _, name := range []string{HeaderUnit, HeaderTime, HeaderSignature, HeaderAudience, HeaderHash} {
		h := headers()
		h.Set(name, "!")
		if name == HeaderUnit || name == HeaderHash {
			h.Set(name, "")
		}
		if _, err := ParseStamp(h.Get); err == nil {
			t.Errorf("bad %s accepted", name)
		}
	}
	want := "gprov-v2\naa\nPOST\n/p\nU\n1500\ne3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n"
	if got := string(SigningString("aa", "POST", "/p", "U", time.UnixMilli(1500), BodyHash(nil))); got != want {
		t.Errorf("signing string %q, want %q", got, want)
	}
}

// TestOldSign checks requests of units of version 0.1.0. The signature is one that such a unit made.
func TestOldSign(t *testing.T) {
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	now := time.UnixMilli(1795309323000)
	h := http.Header{}
	h.Set(HeaderUnit, "S1")
	h.Set(HeaderTime, "1795309323000")
	h.Set(HeaderSignature, "9Dnf2QKSovO9k69Cy7tnsMhfueA1s1Qp1RJsg2Ut14WNyIwgY9xQSG4fj+CVmcvMJJCfj5gS7v3r8VQPMooIDg==")
	s, err := ParseStamp(h.Get)
	if err != nil || s.Scheme != SchemeV1 {
		t.Fatal(s, err)
	}
	pub := key.Public().(ed25519.PublicKey)
	if err := s.Verify(pub, "aa", "POST", "/v1/events", now); !errors.Is(err, ErrSignature) {
		t.Error("without a hash:", err)
	}
	for body, want := range map[string]error{`{"events":[]}`: nil, `{"events":[{}]}`: ErrSignature} {
		s.Hash = BodyHash([]byte(body))
		if err := s.Verify(pub, "aa", "POST", "/v1/events", now); !errors.Is(err, want) {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestCredentials(t *testing.T) {
	c := Credentials{3, "os-pass", "bios-pass", "ipmi-pass"}
	b, err := c.Wire()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseCredentials(b)
	if err != nil {
		t.Fatal(err)
	}
	if back != c {
		t.Error("credentials changed on the wire")
	}
	hidden, _ := json.Marshal(c)
	for _, s := range []string{string(hidden), fmt.Sprintf("%v %+v %#v", c, c, c)} {
		if strings.Contains(s, "pass") {
			t.Errorf("secret in %s", s)
		}
	}
	for _, bad := range []string{`{"generation":0,"os":"a","bios":"b","ipmi":"c"}`, `{"generation":1,"os":"","bios":"b","ipmi":"c"}`, `{"generation":1,"os":"a","bios":"b","ipmi":"12345678901234567"}`, `{"os":"hunter2`} {
		if _, err := ParseCredentials([]byte(bad)); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestEnrolRequest(t *testing.T) {
	r := EnrolRequest{Unit: "S1", Token: "tok", PublicKey: make([]byte, 32), Boot: "b", MACs: []string{"52:54:00:12:34:56"}}
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	b, err := r.Wire()
	if err != nil {
		t.Fatal(err)
	}
	var back EnrolRequest
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(r.Token.Reveal(), back.Token.Reveal()); d != "" || back.Unit != "S1" || len(back.PublicKey) != 32 {
		t.Errorf("request changed on the wire: %s %v", d, back)
	}
	if plain, _ := json.Marshal(r); strings.Contains(string(plain), "tok\"") {
		t.Errorf("token in %s", plain)
	}
	r.MACs = []string{"x"}
	if r.Validate() == nil {
		t.Error("bad hardware address accepted")
	}
}

func TestNames(t *testing.T) {
	for in, want := range map[string]string{
		"52:54:00:12:34:5A":    "52:54:00:12:34:5a",
		"52-54-00-12-34-56":    "52:54:00:12:34:56",
		"01-52-54-00-12-34-56": "52:54:00:12:34:56",
	} {
		if got, err := CleanMAC(in); err != nil || got != want {
			t.Errorf("CleanMAC(%q) = %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "52:54:00:12:34", "52:54:00:12:34:5g", "02-52-54-00-12-34-56", "52:54:00:12:34:56:78"} {
		if _, err := CleanMAC(in); err == nil {
			t.Errorf("CleanMAC(%q) accepted", in)
		}
	}
	for in, want := range map[string]string{
		"10.0.0.1:8443":          "https://10.0.0.1:8443",
		"https://srv:8443/":      "https://srv:8443",
		" https://[fe80::1]:443": "https://[fe80::1]:443",
		"srv":                    "https://srv",
	} {
		if got, err := Endpoint(in); err != nil || got != want {
			t.Errorf("Endpoint(%q) = %q, %v", in, got, err)
		}
	}
	if _, err := Endpoint("http://10.0.2.2:65432/"); !errors.Is(err, ErrPlain) {
		t.Errorf("plain address: %v", err)
	}
	for _, in := range []string{"", "https://", "ftp://x", "https://u@h", "a/b", "https://[zz]:1"} {
		if got, err := Endpoint(in); err == nil {
			t.Errorf("Endpoint(%q) = %q", in, got)
		}
	}
	for _, d := range []string{"", ".", "..", "a/b", `a\b`, "a\x00"} {
		if (Document{Name: d, Type: "t", Boot: "b"}).Validate() == nil {
			t.Errorf("document name %q accepted", d)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"boot":"b","seq":1,"kind":"state","source":"observed","attrs":{"job":"boot","state":"step","percent":3.5}}`), "52:54:00:12:34:56", "https://x:1")
	f.Add([]byte(`{"generation":1,"os":"a","bios":"b","ipmi":"c"}`), "", "[::1]:4")
	f.Fuzz(func(t *testing.T, b []byte, mac, addr string) {
		var e Event
		if json.Unmarshal(b, &e) == nil {
			e = e.Trim()
			e.Validate()
			StateOf(e)
			if _, err := json.Marshal(e); err != nil && e.Time.Year() >= 0 && e.Time.Year() < 10000 {
				t.Error(err)
			}
		}
		if c, err := ParseCredentials(b); err == nil {
			if _, err := c.Wire(); err != nil {
				t.Error(err)
			}
		}
		if m, err := CleanMAC(mac); err == nil && len(m) != 17 {
			t.Errorf("%q", m)
		}
		if a, err := Endpoint(addr); err == nil && !strings.HasPrefix(a, "https://") {
			t.Errorf("%q", a)
		}
		ParseStamp(func(string) string { return mac })
	})
}
