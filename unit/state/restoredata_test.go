package state

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
)

func TestRestoreData(t *testing.T) {
	v := Open(t.TempDir())
	if d, err := v.ReadRestoreData(); err != nil || d != (RestoreData{}) {
		t.Fatalf("without a file: %+v, %v", d, err)
	}
	want := RestoreData{Version: Version, Preserve: true, IgnoreNetCfg: true, ClearHistory: true, XLog: "https://10.0.0.1:8443", BootArgs: "quiet console=ttyS1,115200n8"}
	if err := v.WriteRestoreData(want); err != nil {
		t.Fatal(err)
	}
	if d, err := v.ReadRestoreData(); err != nil || d != want {
		t.Errorf("got %+v, %v", d, err)
	}
	if err := v.WriteRestoreData(RestoreData{BootArgs: "init=/bin/sh"}); err == nil {
		t.Error("an argument that is not allowed was written")
	}
	if err := v.WriteRestoreData(RestoreData{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(v.Path(RestoreDataFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	for text, is := range map[string]error{
		`{"Preserve":true,"BootArgs":"a b"}`: nil, // as the original wrote it
		`{"Version":1}`:                      nil,
		`{"Version":99}`:                     ErrNewer,
		`{"Version":-1}`:                     ErrDamaged,
		`{"XLog":"http://x"}`:                ErrDamaged,
		`{"XLog":"https://me:pw@x/"}`:        ErrDamaged,
		`{"BootArgs":"a\nb"}`:                ErrDamaged,
		`[]`:                                 ErrDamaged,
		`{} {}`:                              ErrDamaged,
		``:                                   ErrDamaged,
	} {
		if _, err := ParseRestoreData([]byte(text)); !errors.Is(err, is) || is == nil && err != nil {
			t.Errorf("%s: got %v, want %v", text, err, is)
		}
	}
}

func TestAllowedArgs(t *testing.T) {
	kept, dropped := AllowedArgs(" quiet console=ttyS0,115200 init=/bin/sh  net.ifnames=0 console=;reboot mfgurl=http://x real_root=PARTUUID=1 quiet=1 module_blacklist=x systemd.unit=rescue.target pci=noaer,nomsi ")
	if kept != "quiet console=ttyS0,115200 net.ifnames=0 pci=noaer,nomsi" {
		t.Errorf("kept %q", kept)
	}
	if len(dropped) != 7 {
		t.Errorf("dropped %q", dropped)
	}
}

func FuzzParseRestoreData(f *testing.F) {
	f.Add([]byte(`{"Preserve":true,"IgnoreNetCfg":true,"XLog":"https://x","BootArgs":"quiet a=b"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ParseRestoreData(b)
		if err != nil {
			return
		}
		kept, _ := AllowedArgs(d.BootArgs)
		if strings.ContainsAny(kept, "\n\"'`$\\;{}") {
			t.Errorf("arguments %q", kept)
		}
		d.BootArgs = kept
		if _, err := d.Marshal(); err != nil {
			t.Error(err)
		}
	})
}

func TestNetworkFile(t *testing.T) {
	v := Open(t.TempDir())
	if b, err := v.ReadNetwork(); b != nil || err != nil {
		t.Fatalf("without a file: %q, %v", b, err)
	}
	if err := v.WriteNetwork(nil); err != nil {
		t.Errorf("nothing to remove: %v", err)
	}
	if err := v.WriteNetwork([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if b, err := v.ReadNetwork(); !bytes.Equal(b, []byte("x")) || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	if err := v.WriteNetwork(make([]byte, MaxNetwork+1)); err == nil {
		t.Error("too large a file was written")
	}
	if err := v.WriteNetwork(nil); err != nil {
		t.Fatal(err)
	}
	if b, _ := v.ReadNetwork(); b != nil {
		t.Errorf("still there: %q", b)
	}
	// What is too large, or a link, is not read.
	if err := errors.Join(os.WriteFile(v.Path(NetworkFile), make([]byte, MaxNetwork+1), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := v.ReadNetwork(); !errors.Is(err, ErrDamaged) {
		t.Errorf("too large: %v", err)
	}
}

func TestRollHistory(t *testing.T) {
	v := Open(t.TempDir())
	if err := v.RollHistory(); err != nil {
		t.Errorf("nothing to roll: %v", err)
	}
	for _, text := range []string{"1", "2"} {
		if err := errors.Join(v.WriteHistory([]byte(text)), v.RollHistory()); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(v.Path(HistoryFile + ".prev")); string(b) != "2" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	if _, err := v.ReadHistory(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the history is still there: %v", err)
	}
}
