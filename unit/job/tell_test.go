package job

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"context"

	"gprovision/hw/block"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/record"
	"gprovision/unit/image/imagetest"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/medium"
	"gprovision/unit/panel/script"
	"gprovision/unit/report"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// TestKeepLog: the log of a job is on the recovery volume from the start of the boot on, with what the server does not have; and when the
// log cannot be kept nothing holds the volume, which could not be unmounted else.
func TestKeepLog(t *testing.T) {
	b := newBench(t)
	b.Journal = journal.New(journal.Options{})
	b.Machine.Log = b.Journal.Logger()
	v := state.Open(t.TempDir())
	if err := os.Mkdir(v.Path(state.LogDir), 0o700); err != nil {
		t.Fatal(err)
	}
	b.Machine.Log.Info("before the volume was there")
	b.Began(record.JobRestore)
	if err := b.KeepLog(v, "restore"); err != nil {
		t.Fatal(err)
	}
	logDir := v.Path(state.LogDir)
	open := filesBelow(t, logDir)
	if err := b.KeepLog(v, "restore"); !errors.Is(err, journal.ErrAttached) {
		t.Errorf("the log is kept twice: %v", err)
	}
	if now := filesBelow(t, logDir); len(now) != len(open) {
		t.Errorf("open were %q, and now are %q", open, now)
	}
	b.Machine.Log.Info("after that")
	if err := errors.Join(b.Journal.Detach(t.Context(), "file"), b.Queue.Release()); err != nil {
		t.Error(err)
	}
	if now := filesBelow(t, v.Path()); len(now) > 0 {
		t.Errorf("afterwards %q are open", now)
	}
	logs, err := filepath.Glob(filepath.Join(v.Path(state.LogDir), "restore*.log"))
	kept := ""
	for _, l := range logs {
		text, rerr := os.ReadFile(l)
		kept, err = kept+string(text), errors.Join(err, rerr)
	}
	for _, line := range []string{"before the volume was there", "after that"} {
		if err != nil || strings.Count(kept, line) != 1 {
			t.Errorf("kept in %q is %q, %v", logs, kept, err)
		}
	}
	next := report.NewQueue("b2")
	if err := next.Persist(v.Path(state.QueueDir)); err != nil {
		t.Fatal(err)
	}
	if heard := machinetest.Heard(t, next); len(heard) != 1 || heard[0].Job != record.JobRestore {
		t.Errorf("the next boot has %+v for the server", heard)
	}
}

// filesBelow returns what this process has open below a directory.
func filesBelow(t *testing.T, dir string) (out []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range all {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, dir+"/") {
			out = append(out, to)
		}
	}
	return out
}

// TestToServer: the server gets the log from the start of the boot on, each record once, however often a job begins to report.
func TestToServer(t *testing.T) {
	var mu sync.Mutex
	var got []string
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/time" {
			if err := json.NewEncoder(w).Encode(record.TimeReply{Time: time.Now()}); err != nil {
				t.Error(err)
			}
			return
		}
		var batch record.Batch
		err := json.NewDecoder(r.Body).Decode(&batch)
		if err != nil || r.URL.Path != "/v1/events" {
			t.Errorf("the server gets %s: %v", r.URL, err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, e := range batch.Events {
			got = append(got, e.Message)
		}
		if err := json.NewEncoder(w).Encode(record.BatchReply{Stored: len(batch.Events)}); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	client, err := report.New(report.Config{Endpoint: server.URL, CA: pool, Unit: "S1", Key: state.NewKey(), Boot: "b1"})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	b := newBench(t)
	b.Journal = journal.New(journal.Options{})
	b.Machine.Log = b.Journal.Logger()
	b.Machine.Log.Info("before there was a server")
	for range 2 {
		b.ToServer(client)
	}
	b.Machine.Log.Info("after that")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := errors.Join(b.Journal.Flush(ctx), b.Queue.Flush(ctx), b.Queue.Close()); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(got, []string{"before there was a server", "after that"}) {
		t.Errorf("the server gets %q", got)
	}
}

// plugIn plugs in a medium with an image.
func (b *bench) plugIn(t *testing.T, content []byte) (medium.Medium, string) {
	t.Helper()
	const fsUUID = "0000-00B1"
	path := b.AddDisk(block.Disk{Name: "sdb", Bus: block.USB, Size: layout.GiB})
	p := layout.Partition{Number: 1, Start: layout.MiB, Size: 100 * layout.MiB, Type: layout.TypeData, UUID: machine.NewIDs().UUID(),
		Role: layout.ESP, FSUUID: fsUUID, FSLabel: "PHOTOS"}
	table := layout.Table{Kind: layout.GPT, UUID: machine.NewIDs().UUID(), Partitions: []layout.Partition{p}}
	err := b.Machine.WriteTable(path, table)
	if err == nil {
		err = b.Machine.Format(t.Context(), path, table, []layout.Role{layout.ESP})
	}
	const name = imagetest.Prefix + "2026-11-23.0001.upd"
	if err == nil {
		err = os.WriteFile(filepath.Join(b.Rig.Volume(fsUUID), layout.EmergencyPrefix+name), content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	b.Survey = &survey.Survey{Eyes: machine.EyesOf(b.Machine), Names: b.Machine.Site.Names}
	return medium.Medium{Path: block.PartitionPath(path, 1), Type: "vfat", UUID: fsUUID}, layout.EmergencyPrefix + name
}

// TestMedium: an image on a medium is proven by reading it whole, from a mount that cannot be written to and is gone afterwards; one that
// is not as it was made does not pass.
func TestMedium(t *testing.T) {
	good := imagetest.XZ(t, imagetest.System(t, imagetest.Prefix+"2026-11-23.0001"))
	bad := slices.Clone(good)
	bad[len(bad)/2] ^= 1
	for _, content := range [][]byte{good, bad} {
		b := newBench(t)
		on, file := b.plugIn(t, content)
		b.Start(nil)
		dir, done, err := b.MountMedium(on)
		if err != nil {
			t.Fatal(err)
		}
		scanned, refused, err := medium.Scan(dir, on.UUID, imagetest.Prefix, b.Machine.Policy, nil)
		if err != nil || len(refused) > 0 || len(scanned) != 1 || scanned[0].Base != file {
			t.Fatalf("on it are %+v, %+v, %v", scanned, refused, err)
		}
		if err := b.ProveOnMedium(t.Context(), scanned[0].Image(dir)); (err == nil) != (&content[0] == &good[0]) {
			t.Errorf("the image is proven: %v", err)
		}
		done()
		if on, err := b.Machine.Mounted(dir); on || err != nil {
			t.Errorf("it stays mounted: %v", err)
		}
		if calls := b.Calls(); !slices.Contains(calls, "mount /dev/sdb1 read-only") || len(b.Written()) > 0 {
			t.Errorf("done was %q, and written to %q", calls, b.Written())
		}
		if b.log.Len() > 0 {
			t.Errorf("the log says:\n%s", &b.log)
		}
	}
}

// TestMediumTroubles: a medium that cannot be mounted is an error, one that cannot be unmounted is told of.
func TestMediumTroubles(t *testing.T) {
	b := newBench(t)
	on, _ := b.plugIn(t, nil)
	none := on
	none.Path += "9"
	if _, _, err := b.MountMedium(none); err == nil {
		t.Error("a medium that is not there is mounted")
	}
	_, done, err := b.MountMedium(on)
	if err != nil {
		t.Fatal(err)
	}
	b.Fail(func(_ int, call string) error {
		if strings.HasPrefix(call, "unmount") {
			return errors.New("somebody is on it")
		}
		return nil
	})
	done()
	if !strings.Contains(b.log.String(), "somebody is on it") {
		t.Errorf("the log says:\n%s", &b.log)
	}
}

// TestRefuseMedium: a person reads why the medium is not used, as long as that takes, and support finds it in the log.
func TestRefuseMedium(t *testing.T) {
	b := newBench(t)
	p := &script.Panel{}
	b.Machine.Panel.Add("script", script.Reader{Panel: p})
	b.RefuseMedium(t.Context(), errors.New("its signature is bad"))
	last := p.Last()
	if last.Problem == nil || last.Problem.Code != fault.MediumUnusable.Code {
		t.Errorf("the person sees %+v", last)
	}
	if !strings.Contains(b.log.String(), fault.MediumUnusable.Code) || !strings.Contains(b.log.String(), "its signature is bad") {
		t.Errorf("the log says:\n%s", &b.log)
	}
}
