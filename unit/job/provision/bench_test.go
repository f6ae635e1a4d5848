package provision

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"filippo.io/age"
	"golang.org/x/crypto/bcrypt"

	"gprovision/factory/api"
	"gprovision/factory/store"
	"gprovision/factory/vault"
	"gprovision/hw/bootloader"
	"gprovision/hw/efi"
	"gprovision/model/layout"
	"gprovision/model/manifest"
	"gprovision/model/platform"
	"gprovision/model/policy"
	"gprovision/model/secret"
	"gprovision/model/signature"
	"gprovision/site"
	"gprovision/unit/decide"
	"gprovision/unit/image/imagetest"
	"gprovision/unit/job/jobtest"
	"gprovision/unit/job/restore"
	"gprovision/unit/keytest"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel"
	"gprovision/unit/state"
)

// What the unit on a bench is, and what it gets.
const (
	benchSerial  = machinetest.Serial
	benchMAC     = "56:78:90:00:00:01"
	benchRelease = machinetest.Original
)

// kinds are the units that provisioning is tried on.
func kinds() map[string]machinetest.Kind {
	return map[string]machinetest.Kind{
		"UEFI, two disks": {Firmware: layout.UEFI}, "BIOS, two disks": {Firmware: layout.BIOS},
		"UEFI, one disk": {Firmware: layout.UEFI, OneDisk: true}, "BIOS, one disk": {Firmware: layout.BIOS, OneDisk: true},
		"UEFI, mirror with data": {Firmware: layout.UEFI, Mirror: true, Data: true},
	}
}

// goods are what a station serves, and the keys behind that. They are made once, since that takes time.
type goods struct {
	dir   string // a server's data, new
	key   signature.PrivateKey
	to    []age.Recipient
	with  []age.Identity
	files map[string][]byte // by name: all but the manifest
}

func newGoods(t *testing.T) *goods {
	t.Helper()
	g := &goods{dir: t.TempDir(), key: keytest.New(t)}
	db, err := store.Open(t.Context(), filepath.Join(g.dir, "x.db"))
	if err == nil {
		err = db.Close()
	}
	if err == nil {
		_, err = api.OpenAuthority(g.dir)
	}
	private, public, kerr := vault.NewKey()
	if err = errors.Join(err, kerr); err == nil {
		g.with, err = age.ParseIdentities(strings.NewReader(private.Reveal()))
	}
	if err == nil {
		g.to, err = vault.ParseRecipients(public)
	}
	if err != nil {
		t.Fatal(err)
	}
	artifact, im := imagetest.BzImage(7, ""), imagetest.XZ(t, imagetest.System(t, benchRelease))
	prefix := site.Stock().Names.ImagePrefix
	g.files = map[string][]byte{
		benchRelease + ".upd": im, "kernel.efi": artifact, "manual.txt": []byte("read me"), "step.sh": []byte("echo \"$2\" > \"$1/doc/stamp\"\n"),
		benchRelease + ".upd" + signature.Suffix: []byte(keytest.Sign(t, g.key, string(im), signature.ImageComment(benchRelease))),
		"kernel.efi" + signature.Suffix:          []byte(keytest.Sign(t, g.key, string(artifact), signature.ArtifactComment(prefix, 7))),
	}
	return g
}

// manifest is that of a station at an address.
func (g *goods) manifest(t *testing.T, address string) []byte {
	t.Helper()
	file := func(name, dest string) manifest.File {
		f, err := manifest.Measure(manifest.File{Src: name, Dest: dest}, bytes.NewReader(g.files[name]))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	m := &manifest.Manifest{
		LogEndpoint: address, CredentialEndpoint: manifest.Vault,
		Files: []manifest.File{file(benchRelease+".upd", ""), file("kernel.efi", "norm_boot"), file("manual.txt", "doc/manual.txt")},
		ValidationData: []manifest.Specs{{
			DevCodeName: "VIRT", RamMegs: 1983, CPUInfo: manifest.CPU{Model: "QEMU Virtual CPU version 2.5+", Cores: 4, Sockets: 2},
			Recovery:        manifest.Disk{Size: machinetest.RecoverySize},
			MainDiskConfigs: [][]manifest.Disk{{{Size: machinetest.MainSize}}, {{Size: machinetest.MainSize, Quantity: 2}}},
			TotalNics:       new(1), SerNumRegex: "^SN-[0-9]+$",
		}},
		CustomPlatCfgSteps: []manifest.PlatformSteps{{DevCodeName: "VIRT", ConfigSteps: []manifest.Step{
			{Name: "look", When: manifest.RunBeforeQA, Commands: []manifest.Command{{Command: "true"}}},
			{Name: "stamp", When: manifest.RunAfterImaging, Files: []manifest.File{file("step.sh", "")},
				Commands: []manifest.Command{{Command: "sh {{.DLDir}}/step.sh {{.RecoveryDir}} {{.Serial}}"}}},
			{Name: "password", When: manifest.RunAfterPWSet, Commands: []manifest.Command{{Command: "test -n {{.BiosPass}}"}}},
		}}},
	}
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// bench is a machine at a station of its own: a factory server, and the files that it serves.
type bench struct {
	t *testing.T
	*machinetest.Rig
	kind  machinetest.Kind
	goods *goods
	db    *store.DB
	ca    *api.Authority
	api   http.Handler
	url   string
	files map[string][]byte
	log   *bytes.Buffer
	// huge is the name of a file that the server says to be as large as a recovery device.
	huge string
	// asked is told of each request before it is answered; nil: nobody.
	asked func(r *http.Request)

	mu       sync.Mutex
	got      map[string]int // requests since the machine was switched on, by method and path
	powers   int            // how often it was switched on
	destroys bool           // clear-main has begun
	approved int            // how often an operator approved a key
}

// newBench puts a new machine to a new station.
func newBench(t *testing.T, g *goods, k machinetest.Kind) *bench {
	t.Helper()
	return atStation(t, g, machinetest.NewUnit(t, k), g.dir, k)
}

// clone puts a copy of the machine to a copy of the station.
func (b *bench) clone(t *testing.T) *bench {
	t.Helper()
	dir := t.TempDir()
	if err := b.db.Backup(t.Context(), filepath.Join(dir, "x.db")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{api.CAFile, api.CAKeyFile} {
		copyFile(t, filepath.Join(dir, name), filepath.Join(b.goods.dir, name))
	}
	c := atStation(t, b.goods, b.Rig.Clone(t), dir, b.kind)
	c.powers = b.powers
	return c
}

func copyFile(t *testing.T, to, from string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// atStation puts a machine to a station with the data in dir, of which it makes a copy.
func atStation(t *testing.T, g *goods, r *machinetest.Rig, dir string, k machinetest.Kind) *bench {
	t.Helper()
	b := &bench{t: t, Rig: r, kind: k, goods: g, log: &bytes.Buffer{}, got: map[string]int{}}
	data := t.TempDir()
	copyFile(t, filepath.Join(data, "x.db"), filepath.Join(dir, "x.db"))
	var err error
	if b.ca, err = api.OpenAuthority(dir); err != nil {
		t.Fatal(err)
	}
	if b.db, err = store.Open(t.Context(), filepath.Join(data, "x.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.db.Close() })
	mux := http.NewServeMux()
	silent := slog.New(slog.DiscardHandler)
	api.New(api.Config{Store: b.db, Vault: vault.New(b.db, g.to), Audience: b.ca.Audience(), Hub: &api.Hub{}, Log: silent}).Register(mux)
	b.api = mux
	conf, err := b.ca.TLS([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(b)
	srv.Listener = tls.NewListener(srv.Listener, conf)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.Start()
	t.Cleanup(srv.Close)
	b.url = strings.Replace(srv.URL, "http:", "https:", 1)
	m := g.manifest(t, b.url)
	b.files = maps.Clone(g.files)
	b.files["manufData.json"] = m
	b.files["manufData.json"+signature.Suffix] = []byte(keytest.Sign(t, g.key, string(m), signature.ManifestComment("WIDGET", "7")))
	return b
}

// ServeHTTP is the station: its requests pass a door of the machine.
func (b *bench) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	call := r.Method + " " + r.URL.Path
	if call == "POST /v1/events" { // they come beside the job, whenever that is
		b.api.ServeHTTP(w, r)
		return
	}
	b.mu.Lock()
	b.got[call]++
	b.mu.Unlock()
	if b.asked != nil {
		b.asked(r)
	}
	switch err := machinetest.Pass(b.Rig, call); {
	case errors.Is(err, machinetest.ErrCut):
		panic(http.ErrAbortHandler)
	case err != nil:
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	name, isFile := strings.CutPrefix(r.URL.Path, "/files/")
	if r.URL.Path == "/v1/enrol" {
		b.enrol(w, r)
		return
	}
	if !isFile {
		b.api.ServeHTTP(w, r)
		return
	}
	content, ok := b.files[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	if r.Method == http.MethodHead && name == b.huge {
		w.Header().Set("Content-Length", fmt.Sprint(machinetest.RecoverySize))
		return
	}
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(content))
}

// enrol answers as the server does. A key that waits is approved by an operator, who sees its fingerprint on the unit too, before the unit
// hears of it.
func (b *bench) enrol(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		b.t.Error(err)
	}
	try := r.Clone(r.Context())
	try.Body = io.NopCloser(bytes.NewReader(body))
	first := httptest.NewRecorder()
	if b.api.ServeHTTP(first, try); first.Code == http.StatusAccepted {
		all, err := b.db.Enrolments(r.Context(), benchSerial)
		if err == nil {
			err = b.db.Approve(r.Context(), benchSerial, all[0].ID, "operator", all[0].Fingerprint)
		}
		if err != nil {
			b.t.Error(err)
		}
		b.mu.Lock()
		b.approved++
		b.mu.Unlock()
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	b.api.ServeHTTP(w, r)
}

// approvals is how often an operator had to approve a key.
func (b *bench) approvals() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.approved
}

// machine is the unit as a job gets it.
func (b *bench) machine() *machine.Machine {
	key := b.goods.key.Public()
	m := &machine.Machine{
		Log: slog.New(slog.NewTextHandler(b.log, nil)), Panel: panel.New(), Site: site.Stock(), BootID: fmt.Sprintf("b%d", b.powers),
		Policy: policy.Policy{ServerCA: string(b.ca.PEM()), Keys: []string{key.String()}}, Keys: []signature.PublicKey{key},
	}
	machinetest.Fit(b.Rig, m)
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text + "\n")} }
	_, sys := machinetest.Sysfs()
	net := "devices/pci0000:00/0000:00:01.0/net/eth0"
	sys["class/dmi/id/product_serial"], sys[net+"/type"], sys[net+"/address"] = file(benchSerial), file("1"), file(benchMAC)
	sys["class/net/eth0"] = &fstest.MapFile{Mode: os.ModeSymlink | 0o777, Data: []byte("../../" + net)}
	m.Sys = sys
	return m
}

// proc is /proc of the unit, with so much memory that is free.
func proc(free int) fstest.MapFS {
	proc, _ := machinetest.Sysfs()
	proc["meminfo"] = &fstest.MapFile{Data: fmt.Appendf(nil, "MemTotal: 2030424 kB\nMemAvailable: %d kB\n", free<<10)}
	return proc
}

// provision switches the machine on and provisions it, as its firmware and the station's boot script have it done. A cut ends all that
// it does.
func (b *bench) provision(fault func(n int, call string) error, change ...func(*provisioning)) error {
	b.t.Helper()
	ctx, off := context.WithCancel(b.t.Context())
	defer off()
	b.powers++
	b.mu.Lock()
	b.got = map[string]int{}
	b.mu.Unlock()
	b.log.Reset()
	b.destroys = false
	b.Start(func(n int, call string) error {
		if fault == nil {
			return nil
		}
		err := fault(n, call)
		if errors.Is(err, machinetest.ErrCut) {
			off()
		}
		return err
	})
	token := fmt.Sprintf("token-of-boot-%d-0123456789abcdef", b.powers)
	now := time.Now()
	err := b.db.AddToken(b.t.Context(), token, store.Token{MAC: benchMAC, Remote: "127.0.0.1", Created: now, Expires: now.Add(time.Hour)})
	if err != nil {
		b.t.Fatal(err)
	}
	m := b.machine()
	m.Site.Hooks = b.hooks()
	e := jobtest.Env(m)
	e.Survey.Args = decide.Args{ManifestURL: b.url + "/files/manufData.json", LogEndpoint: b.url, ContinueLogging: true,
		Token: secret.Secret(token)}
	raise := func(context.Context) (func(), error) { return func() {}, machinetest.Pass(b.Rig, "raise network") }
	j := &provisioning{Machine: m, env: e, options: options{Proc: proc(0), Raise: raise}}
	for _, c := range change {
		c(j)
	}
	err = provision(ctx, j)
	b.nothingElse("the end")
	_, _ = e.Journal.Detach(b.t.Context(), "file"), e.Queue.Close() // what they could not write any more is of no matter
	return err
}

// hooks hold, before each step, that nothing is written before the plan is shown and the first step that clears begins. The end of each
// step is a call.
func (b *bench) hooks() (out []site.Hook) {
	for _, s := range (&provisioning{}).steps() {
		out = append(out, site.Hook{Job: "provision", Step: s.Name, Extra: site.Extra{Name: "before-" + s.Name,
			Run: func(context.Context, site.Unit) error {
				b.destroys = b.destroys || s.Name == "clear-main"
				if shown := strings.Contains(b.log.String(), "all data is lost"); b.destroys && !shown {
					b.t.Errorf("%s begins, and no plan was shown:\n%s", s.Name, b.log)
				}
				b.nothingElse(s.Name)
				return nil
			}}}, site.Hook{Job: "provision", Step: s.Name, After: true, Extra: site.Extra{Name: "after-" + s.Name,
			Run: func(context.Context, site.Unit) error {
				_ = machinetest.Pass(b.Rig, "end of "+s.Name) // a cut ends the next step
				return nil
			}}})
	}
	return out
}

// nothingElse holds that no disk is written to before its time, and none that is not planned at any.
func (b *bench) nothingElse(at string) {
	written := b.Written()
	if !b.destroys && len(written) > 0 {
		b.t.Errorf("%s: %s are written to", at, written)
	}
	if slices.ContainsFunc(written, func(name string) bool { return strings.HasPrefix(name, "sda") }) {
		b.t.Errorf("a disk that is not planned is written to: %s", written)
	}
}

// restore switches the machine on and restores it from its recovery volume, as process 1 does for the request of a provisioning.
func (b *bench) restore() error {
	b.t.Helper()
	b.Start(nil)
	m := b.machine()
	m.Log = slog.New(slog.DiscardHandler) // it goes on in the background
	e, f := jobtest.Look(b.t, m)
	if !f.RestoreRequested() {
		return errors.New("no restore is asked for")
	}
	defer jobtest.End(b.t, e)
	return restore.Run(b.t.Context(), e, f).Err
}

// record reads the unit's record from the only recovery volume of the machine, and returns the volume's partition too.
func (b *bench) record(m *machine.Machine) (u state.Unit, part string) {
	b.t.Helper()
	parts, err := m.Partitions(platform.AllowedRecovery)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, p := range parts {
		info, _, err := m.ProbePartition(p.Path)
		if err != nil {
			b.t.Fatal(err)
		}
		if info.Label != m.Site.Names.Recovery {
			continue
		}
		if part != "" {
			b.t.Fatalf("%s and %s are recovery volumes", part, p.Path)
		}
		part = p.Path
		if u, err = state.Open(b.Volume(info.UUID)).ReadUnit(); err != nil {
			b.t.Fatalf("the unit's record: %v", err)
		}
	}
	if part == "" {
		b.t.Fatal("there is no recovery volume")
	}
	return u, part
}

// ends is where the machine has come to, without what differs each time: identifiers are named by what they identify, times, secrets and
// logs are left out.
func (b *bench) ends() string {
	b.t.Helper()
	b.Start(nil)
	m := b.machine()
	u, _ := b.record(m)
	ids := []string{b.url, "<server>"}
	var volumes []string
	for _, d := range append([]state.Disk{u.Recovery}, u.Main...) {
		ids = append(ids, d.Table.UUID, "<disk "+d.Serial+">")
		for _, p := range d.Table.Partitions {
			name := fmt.Sprintf("%s of %s>", p.Role, d.Serial)
			ids = append(ids, p.UUID, "<partition "+name, p.FSUUID, "<filesystem "+name)
			volumes = append(volumes, p.FSUUID)
		}
	}
	for _, a := range []*state.Array{u.Array, u.DataArray} {
		if a != nil {
			ids = append(ids, a.UUID, "<array "+a.FSLabel+">", a.FSUUID, "<filesystem of the array "+a.FSLabel+">")
			volumes = append(volumes, a.FSUUID)
		}
	}
	for i := 0; i < len(ids); i += 2 {
		if ids[i] == "" {
			ids[i] = "\x00nothing"
		}
	}
	named := strings.NewReplacer(ids...)
	var out strings.Builder
	for _, d := range append([]state.Disk{u.Recovery}, u.Main...) {
		fmt.Fprintf(&out, "%s: %s\n", d.Serial, named.Replace(fmt.Sprintf("%+v", d.Table)))
	}
	for _, uuid := range volumes {
		if dir := b.Volume(uuid); dir != "" {
			fmt.Fprintf(&out, "%s\n%s", named.Replace(uuid), tree(b.t, dir, named))
		}
	}
	blank, _, err := m.BlankDisk(filepath.Join(filepath.Dir(b.Firmware()), "dev", "vdb"))
	fmt.Fprintf(&out, "the main disk is blank: %t %v\n", blank, err)
	v := state.Open(b.Volume(u.Recovery.Table.Find(layout.Recovery).FSUUID))
	request, err := v.ReadRequest()
	fmt.Fprintf(&out, "request: %s %s by %q, missing: %t\n", request.Kind, request.Image, request.By, errors.Is(err, os.ErrNotExist))
	data, err := v.ReadRestoreData()
	fmt.Fprintf(&out, "later restores report: %t %v\n", data.XLog == b.url, err)
	if b.kind.Firmware == layout.UEFI {
		entries, err := efi.New(b.Firmware()).Entries()
		for _, e := range entries {
			fmt.Fprintf(&out, "%04d %s: %s\n", e.Number, e.Description, named.Replace(e.File()))
		}
		fmt.Fprintln(&out, err)
	} else {
		fmt.Fprintln(&out, "boot loader:", b.loader(m, u))
	}
	fmt.Fprintln(&out, b.agreed(u, v))
	return out.String()
}

// loader says what is wrong with the boot loader on the recovery device.
func (b *bench) loader(m *machine.Machine, u state.Unit) error {
	disk, err := m.RecoveryDisk(u)
	if err != nil {
		return err
	}
	dev, err := m.Open(disk.Path, machine.Read)
	if err != nil {
		return err
	}
	defer dev.Close()
	var images bootloader.Images
	dir := filepath.Join(m.Initramfs, "usr/lib/gprov/grub")
	if images.Boot, err = os.ReadFile(filepath.Join(dir, "boot.img")); err != nil {
		return err
	}
	if images.Core, err = os.ReadFile(filepath.Join(dir, "core.img")); err != nil {
		return err
	}
	return bootloader.Verify(dev, u.Recovery.Table, images)
}

// agreed says what unit and server know of each other: the key on the volume speaks for the unit, and its credentials are those that the
// operator reads.
func (b *bench) agreed(u state.Unit, v *state.Volume) string {
	b.t.Helper()
	key, err := v.ReadKey()
	if err != nil {
		b.t.Fatal(err)
	}
	e, err := b.db.ActiveKey(b.t.Context(), benchSerial)
	if err != nil {
		b.t.Fatal(err)
	}
	s, err := b.db.ReadSecret(b.t.Context(), benchSerial, 0, "operator", "127.0.0.1")
	if err != nil {
		b.t.Fatal(err)
	}
	return fmt.Sprintf("the key speaks for the unit: %t; its credentials: %t, confirmed: %t",
		bytes.Equal(e.PublicKey, key.Public().(ed25519.PublicKey)), u.Credentials == s.Generation, !s.Confirmed.IsZero())
}

// opens reports whether the password that the operator reads is that of the unit.
func (b *bench) opens(u state.Unit) error {
	s, err := b.db.ReadSecret(b.t.Context(), benchSerial, u.Credentials, "operator", "127.0.0.1")
	if err != nil {
		return err
	}
	c, err := vault.Open(b.goods.with, benchSerial, u.Credentials, s.Ciphertext)
	if err != nil {
		return err
	}
	hash, err := state.Open(b.Volume(u.Recovery.Table.Find(layout.Recovery).FSUUID)).ReadHash()
	if err != nil {
		return err
	}
	return bcrypt.CompareHashAndPassword([]byte(hash), []byte(c.OS.Reveal()))
}

// holdsNoSecret looks on all volumes of the unit for its passwords, and for the keys of those who release and operate.
func (b *bench) holdsNoSecret(u state.Unit) {
	b.t.Helper()
	s, err := b.db.ReadSecret(b.t.Context(), benchSerial, u.Credentials, "operator", "127.0.0.1")
	if err != nil {
		b.t.Fatal(err)
	}
	c, err := vault.Open(b.goods.with, benchSerial, u.Credentials, s.Ciphertext)
	if err != nil {
		b.t.Fatal(err)
	}
	text, err := b.goods.key.Text("")
	if err != nil {
		b.t.Fatal(err)
	}
	secrets := map[string]string{
		"system's password": c.OS.Reveal(), "firmware's password": c.BIOS.Reveal(), "controller's password": c.IPMI.Reveal(),
		"release key": strings.Split(string(text), "\n")[1], "operator's key": b.goods.with[0].(*age.X25519Identity).String(),
	}
	control := 0
	for _, d := range append([]state.Disk{u.Recovery}, u.Main...) {
		for _, p := range d.Table.Partitions {
			dir := b.Volume(p.FSUUID)
			if p.FSUUID == "" || dir == "" {
				continue
			}
			err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
				if err != nil || !e.Type().IsRegular() {
					return err
				}
				content, err := os.ReadFile(path)
				control += bytes.Count(content, []byte(benchSerial))
				for what, value := range secrets {
					if bytes.Contains(content, []byte(value)) {
						b.t.Errorf("the %s is in %s", what, strings.TrimPrefix(path, dir))
					}
				}
				return err
			})
			if err != nil {
				b.t.Fatal(err)
			}
		}
	}
	if control < 3 {
		b.t.Errorf("the unit's serial number was found %d times: this shows nothing", control)
	}
}

// tree lists a volume with what is in its files, as a hash; what differs each time is left out.
func tree(t *testing.T, dir string, named *strings.Replacer) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(path, dir)
		if strings.HasPrefix(rel, "/log/") && strings.HasSuffix(rel, ".log") || strings.HasPrefix(rel, "/"+state.QueueDir) {
			return nil // their names have the time, or what the server has not taken yet
		}
		fmt.Fprintf(&out, "%s %s", info.Mode(), rel)
		differs := slices.ContainsFunc([]string{"/state/", "/etc/shadow", "/etc/machine-id", "/boot.normal", "/log/"},
			func(prefix string) bool { return strings.HasPrefix(rel, prefix) })
		if e.Type().IsRegular() && !differs {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, " %x", sha256.Sum256([]byte(named.Replace(string(content)))))
		}
		fmt.Fprintln(&out)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}
