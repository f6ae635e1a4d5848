// Command corpus makes and reads what version 0.1.0 of gprovision keeps and sends, by its own packages. The compatibility tests put it into
// the sources of that version and build it there, so it never needs to follow later changes.
//
//	corpus write DIR    writes each file of a unit's state below DIR, laid out as on a recovery volume
//	corpus read DIR     reads them, and prints what they say as one JSON object
//	corpus record DIR   records the signed requests of a unit: requests.jsonl, the server's database after its enrolment
//	                    (enrolled.db) and after all requests (gprov.db), and the server's authority
package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	"gprovision/factory/api"
	"gprovision/factory/login"
	"gprovision/factory/store"
	"gprovision/factory/vault"
	"gprovision/model/layout"
	"gprovision/model/record"
	"gprovision/model/release"
	"gprovision/unit/report"
	"gprovision/unit/state"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: corpus write|read|record DIR")
	}
	do := map[string]func(string) error{"write": write, "read": read, "record": records}[os.Args[1]]
	if do == nil {
		log.Fatalf("what is %s?", os.Args[1])
	}
	if err := do(os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

// Files that a unit keeps elsewhere than on its recovery volume.
const (
	markFile = "mark"
	bootFile = "boot.json"
)

const image = "WIDGET.LNX.SHINY.2026-11-22.0001"

var at = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

func write(dir string) error {
	gpt := layout.Table{Kind: layout.GPT, UUID: "11111111-2222-4333-8444-555555555555", Partitions: []layout.Partition{
		{Role: layout.ESP, Number: 1, Start: 1 << 20, Size: 512 << 20, Type: layout.TypeESP, UUID: "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee", Name: "ESP", FSUUID: "12AB-34CD", FSLabel: "ESP"},
		{Role: layout.Recovery, Number: 2, Start: 513 << 20, Size: 2 << 30, Type: layout.TypeLinux, UUID: "aaaaaaaa-bbbb-4ccc-8ddd-ffffffffffff", Name: "RECOVERY", FSUUID: "99999999-2222-4333-8444-555555555555", FSLabel: "RECOVERY"},
	}}
	mbr := layout.Table{Kind: layout.MBR, UUID: "deadbeef", Partitions: []layout.Partition{
		{Role: layout.Primary, Number: 1, Start: 1 << 20, Size: 4 << 30, Type: layout.TypeMBRLinux, UUID: "deadbeef-01", Active: true, FSUUID: "99999999-2222-4333-8444-555555555556", FSLabel: "PRIMARY"},
	}}
	unit := state.Unit{Serial: "SN-0001", Platform: "VIRT", Firmware: layout.UEFI, ManifestSerial: "7", Server: "https://10.0.0.1:8443",
		ImagePrefix: "WIDGET.LNX.SHINY.", Original: image + ".upd", BootArgs: "quiet", Created: at,
		Recovery:  state.Disk{Size: 3 << 30, SectorSize: 512, Bus: "virtio", Serial: "rec", Table: gpt},
		Main:      []state.Disk{{Size: 8 << 30, SectorSize: 512, Bus: "nvme", Model: "NVMe", WWN: "0x5000", Table: mbr}, {Size: 8 << 30, Table: mbr}},
		Array:     &state.Array{Level: 1, UUID: "aaaaaaaa-bbbb-4ccc-8ddd-000000000001", FSUUID: "aaaaaaaa-bbbb-4ccc-8ddd-000000000002", FSLabel: "PRIMARY"},
		DataArray: &state.Array{Level: 1, UUID: "aaaaaaaa-bbbb-4ccc-8ddd-000000000003", FSUUID: "aaaaaaaa-bbbb-4ccc-8ddd-000000000004", FSLabel: "DATA"},
	}
	request, err := state.NewRequest(state.KindRestore, state.Original, "a person", at)
	if err != nil {
		return err
	}
	counts := state.Counts{BootAttempts: 1, Repairs: 2, RecoveryRepairs: 3, WatchdogResets: 4, RestoreFailures: 5, Restores: 6, Mends: 7, LastGood: at}
	var history release.History
	history.Imaging(image, false, at)
	history.Boot(image, false, 2, at, "a note")
	past, err := history.Marshal()
	if err != nil {
		return err
	}
	v := state.Open(dir)
	mark, err1 := state.Mark{Release: image, Request: request.ID, Serial: "SN-0001", Time: at}.Marshal()
	boot, err2 := state.Boot{ID: "b-1", Job: "boot", Reason: "the main system is complete", Attempts: 2, HandOver: at, Milliseconds: 900, Build: 7,
		Watchdog: state.Watchdog{Device: "/dev/watchdog0", Identity: "iTCO", Running: true, Seconds: 300}, Defects: []string{"G225: one disk is missing"}}.Marshal()
	return errors.Join(err1, err2, os.MkdirAll(dir, 0o755),
		v.WriteUnit(unit), v.WriteRequest(request), v.WriteCounts(counts), v.WriteHistory(past), v.WriteTries(3),
		v.WriteHash("$2b$10$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234"), v.WriteKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))),
		v.WriteMedium(state.Medium{ID: request.ID, Image: image + ".upd", Removed: true}), v.WritePending(state.Pending{RecoveryArtifact: true}),
		v.WriteRestoreData(state.RestoreData{Preserve: true, IgnoreNetCfg: true, ClearHistory: true, XLog: "https://10.0.0.1:8443", BootArgs: "quiet"}),
		os.WriteFile(filepath.Join(dir, markFile), mark, 0o600), os.WriteFile(filepath.Join(dir, bootFile), boot, 0o600))
}

func read(dir string) error {
	out := map[string]any{}
	var all error
	note := func(name string, value any, err error) {
		out[name] = value
		if err != nil {
			all = errors.Join(all, fmt.Errorf("%s: %w", name, err))
		}
	}
	v := state.Open(dir)
	unit, err := v.ReadUnit()
	note(state.UnitFile, unit, err)
	request, err := v.ReadRequest()
	note(state.RequestFile, request, err)
	counts, err := v.ReadCounts()
	note(state.CountsFile, counts, err)
	tries, err := v.ReadTries()
	note(state.ShellFile, tries, err)
	medium, err := v.ReadMedium()
	note(state.MediumFile, medium, err)
	pending, err := v.ReadPending()
	note(state.PendingFile, pending, err)
	data, err := v.ReadRestoreData()
	note(state.RestoreDataFile, data, err)
	hash, err := v.ReadHash()
	note(state.HashFile, hash, err)
	key, err := v.ReadKey()
	note(state.KeyFile, []byte(key), err)
	b, err := v.ReadHistory()
	var history release.History
	if err == nil {
		history, err = release.ParseHistory(b)
	}
	note(state.HistoryFile, history, err)
	b, err = os.ReadFile(filepath.Join(dir, markFile))
	var mark state.Mark
	if err == nil {
		mark, err = state.ParseMark(b)
	}
	note(markFile, mark, err)
	b, err = os.ReadFile(filepath.Join(dir, bootFile))
	var boot state.Boot
	if err == nil {
		boot, err = state.ParseBoot(b)
	}
	note(bootFile, boot, err)
	if all != nil {
		return all
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

// request is a recorded request, with what the server of this version answered.
type request struct {
	Method string      `json:"method"`
	Path   string      `json:"path"`
	Header http.Header `json:"header"`
	Body   []byte      `json:"body"`
	Status int         `json:"status"`
}

func records(dir string) error {
	ctx := context.Background()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	ca, err := api.OpenAuthority(dir)
	if err != nil {
		return err
	}
	db, err := store.Open(ctx, filepath.Join(dir, "gprov.db"))
	if err != nil {
		return err
	}
	defer db.Close()
	logins, err := login.New(db, bcrypt.MinCost)
	if err != nil {
		return err
	}
	if err := logins.SetPassword(ctx, login.Admin, "corpus-password"); err != nil {
		return err
	}
	private, public, err := vault.NewKey()
	if err != nil {
		return err
	}
	to, err := vault.ParseRecipients(public)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "operator.key"), []byte(private.Reveal()), 0o600); err != nil {
		return err
	}
	mux := http.NewServeMux()
	api.New(api.Config{Store: db, Vault: vault.New(db, to), Login: logins, Hub: &api.Hub{}, Log: slog.New(slog.DiscardHandler)}).Register(mux)
	out, err := os.Create(filepath.Join(dir, "requests.jsonl"))
	if err != nil {
		return err
	}
	defer out.Close()
	var mu sync.Mutex
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			log.Fatal(err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		s := &status{ResponseWriter: w, code: http.StatusOK}
		uri := r.URL.RequestURI()
		header := r.Header.Clone()
		mux.ServeHTTP(s, r)
		mu.Lock()
		defer mu.Unlock()
		if err := json.NewEncoder(out).Encode(request{r.Method, uri, header, body, s.code}); err != nil {
			log.Fatal(err)
		}
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	conf, err := ca.TLS([]string{"127.0.0.1"})
	if err != nil {
		return err
	}
	go http.Serve(tls.NewListener(l, conf), handler)

	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.PEM())
	const unit, boot, mac = "SN-0001", "b-1", "52:54:00:12:34:56"
	c, err := report.New(report.Config{Endpoint: "https://" + l.Addr().String(), CA: pool, Unit: unit, Boot: boot, Key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))})
	if err != nil {
		return err
	}
	defer c.Close()
	now := time.Now()
	if err := db.AddToken(ctx, "a-token-of-the-corpus", store.Token{MAC: mac, Serial: unit, Remote: "127.0.0.1", Created: now, Expires: now.Add(time.Hour)}); err != nil {
		return err
	}
	if err := c.Enrol(ctx, record.EnrolRequest{Token: "a-token-of-the-corpus", Platform: "VIRT", MACs: []string{mac}, Build: 7}, nil); err != nil {
		return err
	}
	if err := snapshot(ctx, filepath.Join(dir, "gprov.db"), filepath.Join(dir, "enrolled.db")); err != nil {
		return err
	}
	if _, err := c.Time(ctx); err != nil {
		return err
	}
	if err := c.Permit(ctx, record.JobProvision); err != nil {
		return err
	}
	events := []record.Event{
		{Boot: boot, Seq: 1, Time: now, Kind: record.KindState, Source: record.Observed, Attrs: map[string]any{"job": "provision", "state": "started"}},
		{Boot: boot, Seq: 2, Time: now, Kind: record.KindLog, Source: record.Observed, Level: "INFO", Message: "a line"},
		{Boot: boot, Seq: 3, Time: now, Kind: record.KindState, Source: record.Observed, Attrs: map[string]any{"job": "provision", "state": "succeeded"}},
	}
	if _, err := c.Send(ctx, events[:2]); err != nil {
		return err
	}
	if err := c.Document(ctx, record.Document{Name: "qa.txt", Type: "text/plain", Body: []byte("found, expected")}); err != nil {
		return err
	}
	secret, err := c.Credentials(ctx)
	if err != nil {
		return err
	}
	if err := c.Confirm(ctx, secret.Generation); err != nil {
		return err
	}
	_, err = c.Send(ctx, events[2:])
	return err
}

// snapshot copies a database as it is now: with what is still in its write-ahead log.
func snapshot(ctx context.Context, from, to string) error {
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(from + suffix)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(to+suffix, b, 0o600); err != nil {
			return err
		}
	}
	db, err := store.Open(ctx, to) // takes the log in
	if err != nil {
		return err
	}
	return db.Close()
}

// status remembers the status of an answer.
type status struct {
	http.ResponseWriter
	code int
}

func (s *status) WriteHeader(code int) {
	s.code = code
	s.ResponseWriter.WriteHeader(code)
}
