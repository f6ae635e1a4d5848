package provision

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gprovision/factory/api"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/model/record"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
	"gprovision/unit/state"
)

// TestKeyIn lets the power fail at each moment of a provisioning, as the recovery volume has it then.
func TestKeyIn(t *testing.T) {
	key := state.NewKey()
	// each step leaves this behind, beside what the steps before left
	written := func(v *state.Volume, serial string) {
		if err := v.WriteKeyOf(key, serial); err != nil {
			t.Fatal(err)
		}
	}
	recorded := func(v *state.Volume, serial string) {
		written(v, serial)
		j, _ := testJob(t, policy.Policy{})
		u := j.plan.Unit
		u.Serial, u.Platform, u.Firmware, u.Created, u.Credentials = serial, "P", layout.UEFI, time.Now(), 7
		u.Main = []state.Disk{u.Recovery}
		if err := v.WriteUnit(u); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		prepare func(v *state.Volume)
		held    record.Held
		found   bool
		says    string
	}{
		"formatted":               {func(*state.Volume) {}, record.Held{}, false, "no such file"},
		"the key is written":      {func(v *state.Volume) { written(v, "S1") }, record.Held{}, true, ""},
		"complete":                {func(v *state.Volume) { recorded(v, "S1") }, record.Held{Generation: 7, Provisioned: true}, true, ""},
		"begun by another unit":   {func(v *state.Volume) { written(v, "S2") }, record.Held{}, false, "S2"},
		"of another unit":         {func(v *state.Volume) { recorded(v, "S2") }, record.Held{}, false, "S2"},
		"begun by who knows whom": {func(v *state.Volume) { written(v, "") }, record.Held{}, false, "no record"},
		"a record that is damaged": {func(v *state.Volume) {
			written(v, "S1")
			if err := os.WriteFile(v.Path(state.UnitFile), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, record.Held{}, false, "damaged"},
		"a key that is damaged": {func(v *state.Volume) {
			written(v, "S1")
			if err := os.Truncate(v.Path(state.KeyFile), 9); err != nil {
				t.Fatal(err)
			}
		}, record.Held{}, false, "damaged"},
	} {
		v := state.Open(t.TempDir())
		c.prepare(v)
		k, err := keyIn(v, "S1")
		if c.found != (err == nil) || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
		if c.found && (!k.key.Equal(key) || k.held != c.held) {
			t.Errorf("%s: %+v", name, k.held)
		}
	}
}

// TestTakeKey checks that one key is used, also by the next run in the same boot, and that of two none is.
func TestTakeKey(t *testing.T) {
	fresh, a, b := state.NewKey(), state.NewKey(), state.NewKey()
	for name, c := range map[string]struct {
		found []keep
		want  ed25519.PrivateKey
	}{
		"none":       {nil, fresh},
		"one":        {[]keep{{key: a}}, a},
		"twice":      {[]keep{{key: a}, {key: a}}, a},
		"two others": {[]keep{{key: a}, {key: b}}, fresh},
	} {
		j, _ := testJob(t, policy.Policy{})
		j.env.Key = fresh
		j.takeKey(c.found)
		if !j.env.Key.Equal(c.want) {
			t.Error(name)
		}
	}
}

// TestKeyBeforeCredentials holds the order that a unit's key depends on: it is looked for before the server hears of any, and written,
// which waits for the disk, before credentials are asked for.
func TestKeyBeforeCredentials(t *testing.T) {
	j, _ := testJob(t, policy.Policy{})
	at := map[string]int{}
	for i, s := range j.steps() {
		at[s.Name] = i
	}
	if !(at["find-key"] < at["announce"] && at["announce"] < at["enrol"] && at["enrol"] < at["format-recovery"] && at["format-recovery"] < at["credentials"] && at["credentials"] < at["write-record"]) {
		t.Errorf("%v", at)
	}
	v := state.Open(filepath.Join(t.TempDir(), "nothing"))
	if err := v.WriteKeyOf(state.NewKey(), "S1"); !errors.Is(err, os.ErrNotExist) {
		t.Error("a key that is written nowhere:", err)
	}
}

// TestKeyWaits: while the server wants a person, the unit's panel and log show the fingerprint of its key as the server's page does.
func TestKeyWaits(t *testing.T) {
	ca, err := api.OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	conf, err := ca.TLS([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/enrol" {
			fmt.Fprintf(w, `{"time":%q}`, time.Now().UTC().Format(time.RFC3339))
			return
		}
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintf(w, `{"status":%q,"reason":"it is the first","time":%q}`, record.Pending, time.Now().UTC().Format(time.RFC3339))
	}))
	s.Listener = tls.NewListener(s.Listener, conf)
	s.Start()
	defer s.Close()
	j, log := testJob(t, policy.Policy{ServerCA: string(ca.PEM())})
	_, j.Sys = machinetest.Sysfs()
	j.Panel, j.env.Key, j.BootID = panel.New(), state.NewKey(), "b1"
	shown := record.Fingerprint(j.env.Key.Public().(ed25519.PublicKey))
	seen := &script.Panel{}
	j.Panel.Add("script", seen)
	j.Machine.Log = slog.New(slog.NewTextHandler(until{log, "waiting for approval", cancel}, nil)) // it would ask for ever
	err = j.connectTo(ctx, strings.Replace(s.URL, "http:", "https:", 1))
	if fault.Of(err) != fault.EnrolRefused || !strings.Contains(err.Error(), "it is the first") {
		t.Errorf("got %v", err)
	}
	if err := j.Panel.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := seen.Last().Message; got != "Approve on server: "+shown {
		t.Errorf("the panel shows %q, want the fingerprint %s", got, shown)
	}
	if !strings.Contains(log.String(), shown) {
		t.Errorf("the log does not say %s: %s", shown, log)
	}
}
