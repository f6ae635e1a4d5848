package handover

import (
	"cmp"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// bootOK is the link that enables gprov-unit's service, which stops the watchdog if nobody else has it.
const bootOK = "etc/systemd/system/multi-user.target.wants/gprov-boot-ok.service"

// takesOver reports whether the installed system takes over a watchdog that runs: its systemd is told to (RuntimeWatchdogSec,
// systemd-system.conf(5)), or its boots are marked good by our service.
func takesOver(root fs.FS) bool {
	if _, err := fs.Lstat(root, bootOK); err == nil {
		return true
	}
	// A file of the same name in etc hides the one in usr/lib; names are sorted over all directories; the last value counts.
	files := map[string]string{}
	for _, dir := range []string{"usr/lib/systemd", "etc/systemd"} {
		if _, err := fs.Stat(root, dir+"/system.conf"); err == nil {
			files[""] = dir + "/system.conf"
		}
		list, _ := fs.Glob(root, dir+"/system.conf.d/*.conf")
		for _, f := range list {
			files[path.Base(f)] = f
		}
	}
	var names []string
	for n := range files {
		names = append(names, n)
	}
	slices.SortFunc(names, cmp.Compare[string])
	value := ""
	for _, n := range names {
		if v, ok := setting(root, files[n], "RuntimeWatchdogSec"); ok {
			value = v
		}
	}
	switch strings.ToLower(value) {
	case "", "0", "0s", "off", "no", "infinity":
		return false
	}
	return true
}

const maxConf = 1 << 20

// setting returns the last value of a key in a file of systemd's form.
func setting(root fs.FS, name, key string) (value string, ok bool) {
	st, err := fs.Stat(root, name)
	if err != nil || !st.Mode().IsRegular() || st.Size() > maxConf {
		return "", false
	}
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(b)) {
		k, v, is := strings.Cut(line, "=")
		if is && strings.TrimSpace(k) == key {
			value, ok = strings.TrimSpace(v), true
		}
	}
	return value, ok
}

// systemTakesOver is takesOver for the mounted main system.
func (b *boot) systemTakesOver() (bool, error) {
	r, err := os.OpenRoot(b.env.Machine.Places.Main)
	if err != nil {
		return false, err
	}
	defer r.Close()
	return takesOver(r.FS()), nil
}
