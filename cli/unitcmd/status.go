package unitcmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sort"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"gprovision/cli/answer"
	"gprovision/cli/shown"
	"gprovision/hw/watchdog"
	"gprovision/model/bootimage"
	"gprovision/unit/state"
	"gprovision/unit/sysroot"
)

// StatusCmd shows what the unit is.
type StatusCmd struct {
	JSON bool `help:"Print JSON, with a version."`
}

// Help returns examples.
func (*StatusCmd) Help() string {
	return "Exit status 1: the system has no mark, it was not restored to the end.\nWithout root's rights what lies on the recovery volume is left out.\n\nExample:\n  sudo gprov-unit status --json"
}

// Status is what status prints as JSON. What is not known is null or missing.
type Status struct {
	// Serial is the unit's serial number, Platform its kind and Firmware uefi or bios.
	Serial   string `json:"serial,omitempty"`
	Platform string `json:"platform,omitempty"`
	Firmware string `json:"firmware,omitempty"`
	// Mark says that the system is complete, and which release it is.
	Mark *state.Mark `json:"mark"`
	// Boot is what init told about this boot. Its certificates are left out.
	Boot *state.Boot `json:"boot"`
	// Watchdog says who has the hardware watchdog: running, stopped, or empty if there is none.
	Watchdog string `json:"watchdog,omitempty"`
	// Artifacts are the build numbers of the boot artifacts: normal of the installed release, recovery. One that cannot be read is
	// missing, and among the problems.
	Artifacts map[string]uint64 `json:"artifacts"`
	// Recovery is what the recovery volume remembers, null if it cannot be read; Reason says why.
	Recovery *RecoveryStatus `json:"recovery"`
	Reason   string          `json:"reason,omitempty"`
}

// RecoveryStatus is the part of Status that needs root's rights.
type RecoveryStatus struct {
	// Device is the device node and ReadOnly how it is mounted.
	Device   string `json:"device"`
	ReadOnly bool   `json:"readOnly"`
	// Server is the factory server's address and Provisioned the time of the provisioning.
	Server      string    `json:"server,omitempty"`
	Provisioned time.Time `json:"provisioned,omitzero"`
	// Images are the names of the images.
	Images []string `json:"images"`
	// Request is what the next boot is asked for, or null.
	Request *state.Request `json:"request"`
	// Counts are the unit's counts.
	Counts state.Counts `json:"counts"`
	// Queue is how many files of records wait for the server.
	Queue int `json:"queue"`
	// Pending is what the next normal boot has to do.
	Pending state.Pending `json:"pending,omitzero"`
	// Problems are files that cannot be read, each with its reason.
	Problems []string `json:"problems,omitempty"`
}

// Run shows the status.
func (s *StatusCmd) Run(c *Context) error {
	st, err := c.status()
	if err != nil {
		return err
	}
	if s.JSON {
		if err := answer.JSON(c.Stdout, st); err != nil {
			return err
		}
	} else {
		st.print(c)
	}
	if st.Mark == nil {
		return &hinted{errors.New("this system has no mark: no restore came to its end here"), "the next boot will restore it"}
	}
	return nil
}

func (c *Context) status() (Status, error) {
	var st Status
	if b, err := c.read(c.Site.Names.ConfDir+"/serial", 1024); err == nil {
		st.Serial = printable(string(b))
	}
	if b, err := c.read(c.Site.Names.ConfDir+"/platform_facts.json", 1<<20); err == nil {
		var facts struct{ DevCodeName string }
		if json.Unmarshal(b, &facts) == nil {
			st.Platform = printable(facts.DevCodeName)
		}
	}
	m, err := c.mark()
	switch {
	case err == nil:
		st.Mark = &m
	case !missing(err):
		return st, err
	}
	if b, err := c.boot(); err == nil {
		b.ServerCA = ""
		st.Boot = &b
		if dev := b.Watchdog.Device; dev != "" {
			st.Watchdog = "stopped"
			if running, ok := watchdog.Running(os.DirFS(c.path("sys")), dev); running || !ok && b.Watchdog.Running {
				st.Watchdog = "running"
			}
		}
	}
	st.Artifacts = map[string]uint64{}
	if n, err := c.artifactBuild("boot/" + c.Site.Names.BootFile); err == nil {
		st.Artifacts["normal"] = n
	}
	st.Recovery, err = c.recovery(&st)
	if err != nil {
		st.Reason = err.Error()
	}
	return st, nil
}

func (c *Context) recovery(st *Status) (*RecoveryStatus, error) {
	m, err := c.mounted()
	if err != nil {
		return nil, err
	}
	if m == nil {
		return nil, fmt.Errorf("the recovery volume is not mounted")
	}
	v := state.Open(c.recoveryDir())
	r := &RecoveryStatus{Device: m.Source, ReadOnly: m.ReadOnly, Images: []string{}}
	list, err := os.ReadDir(v.Path())
	if errors.Is(err, fs.ErrPermission) {
		return nil, errors.New("only root may look into the recovery volume")
	}
	if err != nil || len(list) == 0 {
		return nil, errors.Join(errors.New("the recovery volume is empty or cannot be read"), err)
	}
	problem := func(err error) {
		if err != nil && !missing(err) {
			r.Problems = append(r.Problems, err.Error())
		}
	}
	u, err := v.ReadUnit()
	if err == nil {
		st.Serial, st.Platform, st.Firmware = u.Serial, u.Platform, string(u.Firmware)
		r.Server, r.Provisioned = u.Server, u.Created
	}
	problem(err)
	req, err := v.ReadRequest()
	if err == nil && (st.Mark == nil || st.Mark.Request != req.ID) { // else it is fulfilled
		r.Request = &req
	}
	problem(err)
	r.Counts, err = v.ReadCounts()
	problem(err)
	build, err := c.artifactBuild(sysroot.RecoveryDir(c.Site.Names.Recovery) + "/" + c.Site.Names.BootFile)
	if err == nil {
		st.Artifacts["recovery"] = build
	}
	problem(err)
	images, err := os.ReadDir(v.Path(state.ImageDir))
	problem(err)
	for _, e := range images {
		if strings.HasSuffix(e.Name(), ".upd") {
			r.Images = append(r.Images, printable(e.Name()))
		}
	}
	sort.Strings(r.Images)
	r.Pending, err = v.ReadPending()
	problem(err)
	queue, err := os.ReadDir(v.Path(state.QueueDir))
	problem(err)
	for _, e := range queue {
		if strings.HasSuffix(e.Name(), ".jsonl") {
			r.Queue++
		}
	}
	return r, nil
}

// artifactBuild returns the build number of a boot artifact in the running system.
func (c *Context) artifactBuild(name string) (uint64, error) {
	r, err := os.OpenRoot(c.Root)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	f, err := r.OpenFile(strings.TrimPrefix(name, "/"), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	s, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !s.Mode().IsRegular() {
		return 0, fmt.Errorf("%s is not a regular file", name)
	}
	n, err := bootimage.BuildNumber(f, s.Size())
	if err != nil {
		return 0, fmt.Errorf("build number of %s: %w", name, err)
	}
	return n, nil
}

func (st Status) print(c *Context) {
	w := tabwriter.NewWriter(c.Stdout, 0, 4, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s:\t%s\n", name, shown.Line(fmt.Sprintf(format, args...)))
	}
	row("unit", "%s", or(st.Serial, "unknown"))
	row("platform", "%s", or(strings.TrimSpace(st.Platform+" "+st.Firmware), "unknown"))
	if m := st.Mark; m != nil {
		row("release", "%s", or(m.Release, "unknown"))
		row("restored", "%s", when(m.Time))
	} else {
		row("release", "not complete: no mark")
	}
	if b := st.Boot; b != nil {
		row("boot", "%s: %s, attempt %d", b.Job, or(b.Reason, "no reason given"), b.Attempts)
		for _, d := range b.Defects {
			row("defect", "%s", d)
		}
		if b.Milliseconds > 0 {
			row("hand-over", "%s after the start of init, %s", time.Duration(b.Milliseconds)*time.Millisecond, when(b.HandOver))
		}
		if w := b.Watchdog; w.Device != "" {
			ended := ""
			if w.Expired {
				ended = "; it ended the boot before this one"
			}
			row("watchdog", "%s (%s), %s%s", w.Device, or(w.Identity, "unknown"), st.Watchdog, ended)
		}
	}
	row("artifacts", "normal %s, recovery %s", st.build("normal"), st.build("recovery"))
	r := st.Recovery
	if r == nil {
		row("recovery", "%s", st.Reason)
		w.Flush()
		return
	}
	how := "writable"
	if r.ReadOnly {
		how = "read-only"
	}
	row("recovery", "%s, %s", r.Device, how)
	row("provisioned", "%s", when(r.Provisioned))
	row("server", "%s", or(r.Server, "none"))
	for i, name := range r.Images {
		row(map[bool]string{true: "images"}[i == 0], "%s", name)
	}
	if q := r.Request; q != nil {
		row("request", "%s, by %s, %s", strings.TrimSpace(q.Kind+" "+q.Image), or(q.By, "nobody known"), when(q.Time))
	} else {
		row("request", "none")
	}
	row("counts", "%d boots since the last good one, %d of them ended by a watchdog, %d repairs, %d repairs of recovery, %d restores that failed, %d that succeeded",
		r.Counts.BootAttempts, r.Counts.WatchdogResets, r.Counts.Repairs, r.Counts.RecoveryRepairs, r.Counts.RestoreFailures, r.Counts.Restores)
	row("last good boot", "%s", when(r.Counts.LastGood))
	if r.Pending.RecoveryArtifact {
		row("pending", "the recovery device gets the fetched recovery artifact at the next normal boot")
	}
	row("queue", "%d files of records wait for the server", r.Queue)
	for _, p := range r.Problems {
		row("problem", "%s", p)
	}
	w.Flush()
}

func (st Status) build(artifact string) string {
	if n, ok := st.Artifacts[artifact]; ok {
		return fmt.Sprintf("build %d", n)
	}
	return "unknown"
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func when(t time.Time) string {
	if t.IsZero() {
		return "never, or not known"
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
