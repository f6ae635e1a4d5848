package netboot

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gprovision/factory/limit"
	"gprovision/factory/store"
	"gprovision/model/bootimage"
	"gprovision/model/record"
)

// TokenLife is how long a unit may take from fetching its boot script to enrolling.
const TokenLife = 30 * time.Minute

// Names in the directory of files.
const (
	// Artifact is the provisioning artifact.
	Artifact = "provision.pxe"
	// DefaultManifest is the manifest that units are given.
	DefaultManifest = "manufData.json"
)

// Units finds units and stores their tokens. *store.DB is one.
type Units interface {
	FindUnit(ctx context.Context, serial, mac string) (store.Unit, error)
	AddToken(ctx context.Context, token string, t store.Token) error
}

// HTTPConfig is what the plain HTTP side needs.
type HTTPConfig struct {
	// Base is the address where units reach this server, such as http://10.0.0.1:8080, without a slash at the end.
	Base string
	// API is the address of the server's API, such as https://10.0.0.1:8443. Units report there from their first
	// step. If it is empty, they report only once the manifest has named a server.
	API string
	// Files is the directory of manifests, images and the provisioning artifact. Everything in it is public.
	Files string
	// IPXE is the directory of iPXE binaries.
	IPXE string
	// Manifest is the name of the manifest below Files. Empty means DefaultManifest.
	Manifest string
	// Port returns the MAC address of the machine with an IP address, as the network shows it. If it finds none, the
	// unit gets no token.
	Port  func(netip.Addr) (mac string, err error)
	Units Units
	Log   *slog.Logger
}

// HTTP serves the boot script, the provisioning artifact and the files. Only the tokens are secret.
type HTTP struct {
	HTTPConfig
	files *os.Root
	asks  *limit.Limiter
	now   func() time.Time
}

// NewHTTP opens the directory of files.
func NewHTTP(c HTTPConfig) (*HTTP, error) {
	if c.Manifest == "" {
		c.Manifest = DefaultManifest
	}
	if !filepath.IsLocal(c.Manifest) {
		return nil, fmt.Errorf("manifest %q: want a path inside the directory of files", c.Manifest)
	}
	root, err := os.OpenRoot(c.Files)
	if err != nil {
		return nil, fmt.Errorf("open directory of files: %w", err)
	}
	return &HTTP{HTTPConfig: c, files: root, asks: limit.New(20, 2*time.Second), now: time.Now}, nil
}

// endpoint is the kernel argument that names the API.
func (h *HTTP) endpoint() string {
	if h.API == "" {
		return ""
	}
	return " PROVISION_XLOG=" + h.API
}

// Close closes the directory.
func (h *HTTP) Close() error { return h.files.Close() }

// Register adds the handlers to a mux.
func (h *HTTP) Register(mux *http.ServeMux) {
	mux.HandleFunc("GET /boot.ipxe", h.script)
	mux.HandleFunc("GET /"+Artifact, func(w http.ResponseWriter, r *http.Request) { h.serve(w, r, Artifact) })
	mux.HandleFunc("GET /"+Artifact+"/{part}", h.part)
	mux.HandleFunc("GET /files/{path...}", func(w http.ResponseWriter, r *http.Request) { h.serve(w, r, r.PathValue("path")) })
	mux.HandleFunc("GET /ipxe/{name}", h.loader)
}

// open opens a regular file of the directory. Symbolic links that lead out of it are not followed.
func (h *HTTP) open(name string) (*os.File, os.FileInfo, error) {
	name = path.Clean(name)
	if !fs.ValidPath(name) {
		return nil, nil, fs.ErrNotExist
	}
	f, err := h.files.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // never wait for the other end of a pipe
	if err != nil {
		return nil, nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, st, nil
}

// etag returns a tag of the content of a file. It changes whenever the file is written or replaced.
func etag(st os.FileInfo, part string) string {
	var ino, ctime int64
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		ino, ctime = int64(s.Ino), s.Ctim.Nano()
	}
	return fmt.Sprintf(`"%x-%x-%x-%x%s"`, st.Size(), st.ModTime().UnixNano(), ctime, ino, part)
}

func (h *HTTP) serve(w http.ResponseWriter, r *http.Request, name string) {
	f, st, err := h.open(name)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			h.Log.Warn("file not served", "name", name, "client", r.RemoteAddr, "error", err.Error())
		}
		http.NotFound(w, r)
		return
	}
	defer f.Close()
	h.content(w, r, name, etag(st, ""), st.ModTime(), f)
}

func (h *HTTP) content(w http.ResponseWriter, r *http.Request, name, tag string, mod time.Time, c io.ReadSeeker) {
	w.Header().Set("ETag", tag)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	kind := "application/octet-stream"
	switch path.Ext(name) {
	case ".json":
		kind = "application/json"
	case ".minisig", ".txt":
		kind = "text/plain; charset=utf-8"
	}
	w.Header().Set("Content-Type", kind)
	h.Log.Info("file", "name", name, "client", r.RemoteAddr, "range", r.Header.Get("Range"))
	http.ServeContent(w, r, "", mod, c)
}

// part serves the kernel or the initramfs of the provisioning artifact, for firmware that cannot boot it whole.
func (h *HTTP) part(w http.ResponseWriter, r *http.Request) {
	f, st, err := h.open(Artifact)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer f.Close()
	im, err := bootimage.Parse(f, st.Size())
	if err != nil {
		h.Log.Error("provisioning artifact is not bootable", "error", err.Error())
		http.Error(w, Artifact+" on the server is not a boot artifact", http.StatusInternalServerError)
		return
	}
	part := r.PathValue("part")
	var c io.ReadSeeker
	switch {
	case part == "vmlinuz" && im.UKI != nil:
		c = im.UKI.Linux()
	case part == "initrd" && im.UKI != nil:
		c = im.UKI.Initrd()
	case part == "vmlinuz":
		c = f // the initramfs is inside the kernel
	default:
		http.NotFound(w, r)
		return
	}
	h.content(w, r, Artifact+"/"+part, etag(st, "-"+part), st.ModTime(), c)
}

// loader serves an iPXE binary, for UEFI HTTP boot.
func (h *HTTP) loader(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if !slices.Contains(Loaders(), name) {
		http.NotFound(w, r)
		return
	}
	f, err := os.Open(filepath.Join(h.IPXE, name))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		http.NotFound(w, r)
		return
	}
	h.content(w, r, name, etag(st, ""), st.ModTime(), f)
}

// script answers boot.ipxe. To a request without parameters the answer is a script that asks again with them.
func (h *HTTP) script(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	q := r.URL.Query()
	if !q.Has("mac") {
		// netX is the port that iPXE used last, which is the one that it was booted from.
		fmt.Fprintf(w, "#!ipxe\nchain --replace %s/boot.ipxe?mac=${netX/mac}&serial=${serial:uristring}&uuid=${uuid}&platform=${platform}\n", h.Base)
		return
	}
	if !h.asks.Allow(limit.Remote(r.RemoteAddr)) {
		http.Error(w, "too many requests from this address", http.StatusTooManyRequests)
		return
	}
	a := asker{efi: q.Get("platform") == "efi", remote: limit.Remote(r.RemoteAddr)}
	var err error
	if a.mac, err = record.CleanMAC(q.Get("mac")); err != nil {
		io.WriteString(w, h.message(a, "this machine has no usable hardware address: "+q.Get("mac"), false))
		return
	}
	if s := strings.TrimSpace(q.Get("serial")); store.IsSerial(s) { // a text that all boards of a model share is no serial number
		a.serial = s
	}
	a.proven = h.hasAddress(r.RemoteAddr, a.mac)
	text, err := h.decide(r.Context(), a)
	if err != nil {
		h.Log.Error("boot script", "mac", a.mac, "serial", a.serial, "error", err.Error())
		text = h.message(a, "the server has trouble of its own, see its log", true)
	}
	io.WriteString(w, text)
}

// asker is the machine that requests a boot script.
type asker struct {
	mac, serial string // serial is empty if unknown
	efi         bool
	remote      string
	// proven reports whether the network shows that the request comes from the port mac.
	proven bool
}

// hasAddress reports whether the port mac has the address remote. A text in the request would prove nothing, because any
// machine can send it.
func (h *HTTP) hasAddress(remote, mac string) bool {
	from, err := netip.ParseAddrPort(remote)
	port := ""
	if err == nil && h.Port != nil {
		port, err = h.Port(from.Addr())
	}
	if err == nil && port == mac {
		return true
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	h.Log.Warn("boot script without a token: the network does not show that this port asks", "mac", mac, "port", port, "client", remote, "error", text)
	return false
}

// decide returns the script for a unit. It provisions the unit, unless the unit is complete.
func (h *HTTP) decide(ctx context.Context, a asker) (string, error) {
	u, err := h.Units.FindUnit(ctx, a.serial, a.mac)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return "", err
	}
	if err == nil && u.Completed() {
		h.Log.Info("boot script", "mac", a.mac, "serial", a.serial, "unit", u.ID, "decision", "boot from disk")
		// UEFI goes on to its next boot entry only after an error. After a success it would start the boot order
		// again.
		return "#!ipxe\necho gprovision: this unit is provisioned, booting from disk\nexit 1\n", nil
	}
	f, st, err := h.open(Artifact)
	if err != nil {
		h.Log.Error("boot script", "mac", a.mac, "serial", a.serial, "error", Artifact+" is missing in "+h.Files)
		return h.message(a, "the server has no file "+Artifact, true), nil
	}
	defer f.Close()
	im, err := bootimage.Parse(f, st.Size())
	if err != nil {
		h.Log.Error("provisioning artifact is not bootable", "error", err.Error())
		return h.message(a, Artifact+" on the server is not a boot artifact", true), nil
	}
	m, _, err := h.open(h.Manifest)
	if err != nil {
		h.Log.Error("boot script", "mac", a.mac, "serial", a.serial, "error", h.Manifest+" is missing in "+h.Files)
		return h.message(a, "the server has no manifest "+h.Manifest, true), nil
	}
	m.Close()
	cmdline := ""
	if im.UKI != nil {
		if cmdline = im.UKI.Cmdline(); clean(cmdline) != cmdline {
			h.Log.Error("boot script", "error", "the kernel arguments of "+Artifact+" hold a character that iPXE would interpret", "arguments", cmdline)
			return h.message(a, "the kernel arguments of "+Artifact+" cannot be passed on", true), nil
		}
	}
	enrol := ""
	if a.proven {
		b := make([]byte, 16)
		if _, err := rand.Read(b); err != nil {
			return "", err
		}
		token := hex.EncodeToString(b)
		now := h.now()
		if err := h.Units.AddToken(ctx, token, store.Token{MAC: a.mac, Serial: a.serial, Remote: a.remote, Created: now, Expires: now.Add(TokenLife)}); err != nil {
			return "", err
		}
		enrol = " enrol=" + token
	}
	args := strings.Join(strings.Fields(cmdline+" mfgurl="+h.Base+"/files/"+(&url.URL{Path: h.Manifest}).EscapedPath()+enrol+" BOOTIF="+a.mac+h.endpoint()), " ")
	var s strings.Builder
	s.WriteString("#!ipxe\necho gprovision: provisioning this unit\n")
	switch {
	case a.efi:
		fmt.Fprintf(&s, "kernel %s/%s %s || goto failed\n", h.Base, Artifact, args)
	default:
		fmt.Fprintf(&s, "kernel %s/%s/vmlinuz %s || goto failed\n", h.Base, Artifact, args)
		if im.UKI != nil {
			fmt.Fprintf(&s, "initrd %s/%s/initrd || goto failed\n", h.Base, Artifact)
		}
	}
	s.WriteString("boot || goto failed\n:failed\necho gprovision: the provisioning artifact cannot be loaded\n")
	s.WriteString(h.again(a))
	h.Log.Info("boot script", "mac", a.mac, "serial", a.serial, "unit", u.ID, "decision", "provision", "token", a.proven)
	return s.String(), nil
}

// message returns a script that shows a text, and then asks again or returns to the firmware.
func (h *HTTP) message(a asker, text string, again bool) string {
	s := "#!ipxe\necho gprovision: " + clean(text) + "\n"
	if again {
		return s + h.again(a)
	}
	return s + "sleep 10\nexit 1\n"
}

// again returns the end of a script that asks again after a pause.
func (h *HTTP) again(a asker) string {
	q := url.Values{"mac": {a.mac}, "serial": {a.serial}, "platform": {map[bool]string{true: "efi", false: "pcbios"}[a.efi]}}
	return "echo gprovision: trying again in 10 seconds\nimgfree\nsleep 10\nchain --replace " + h.Base + "/boot.ipxe?" + q.Encode() + "\n"
}

// clean makes a text safe for a line of an iPXE script. It removes control characters, and everything that iPXE would
// expand or take for an operator.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, s)
	return strings.NewReplacer("$", "", "|", "", "&", "").Replace(s)
}

// CheckFiles returns a sentence for each file that is missing or wrong, so that units could not boot.
func (h *HTTP) CheckFiles() []string {
	var out []string
	f, st, err := h.open(Artifact)
	if err != nil {
		out = append(out, fmt.Sprintf("%s is missing: build it with 'gprov boot build --provision' and put it there", filepath.Join(h.Files, Artifact)))
	} else {
		if _, err := bootimage.Parse(f, st.Size()); err != nil {
			out = append(out, fmt.Sprintf("%s is not a boot artifact: %v", filepath.Join(h.Files, Artifact), err))
		}
		f.Close()
	}
	if f, _, err := h.open(h.Manifest); err != nil {
		out = append(out, fmt.Sprintf("%s is missing: make it with 'gprov manifest make'", filepath.Join(h.Files, h.Manifest)))
	} else {
		f.Close()
	}
	for _, name := range []string{FileBIOS, FileEFI} {
		if _, err := os.Stat(filepath.Join(h.IPXE, name)); err != nil {
			out = append(out, fmt.Sprintf("%s is missing: install the Debian package ipxe, or name its directory with --ipxe", filepath.Join(h.IPXE, name)))
		}
	}
	return out
}

// BaseURL returns the value of HTTPConfig.Base for an address and a port.
func BaseURL(host string, port int) string { return "http://" + host + ":" + strconv.Itoa(port) }
