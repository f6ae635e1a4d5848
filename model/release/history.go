package release

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"gprovision/model/unknown"
)

// HistoryFile is where the history lies on the recovery volume.
const HistoryFile = "log/recovery_history.json"

// MaxFailures is how many failures an image may have had, of writing and of booting taken together, to be chosen.
const MaxFailures = 5

// MaxHistory is how many bytes HistoryFile may have. No more are written, and no more are read.
const MaxHistory = 4 << 20

const (
	maxKept    = 1 << 19 // bytes of a file that is written with keys that are not known
	maxRecords = 256     // images
	maxNotes   = 64      // of one image; the oldest are dropped
	maxNote    = 1024    // characters
)

// History is what became of each image, most recently used first. The format is the original system's:
// recovery_history.json. The zero value is an empty history.
type History struct {
	// Version is the format version; 0 and 1 are the same.
	Version      int      `json:"version,omitempty"`
	ImageResults []Result `json:"ImageResults"`

	unknown unknown.Keys // what a newer program has written
}

// historyVersion is the newest format version of a history that is read.
const historyVersion = 1

// ErrNewerHistory is returned for a history of a newer format. It is neither used nor rewritten, nor set aside.
var ErrNewerHistory = errors.New("history of images: written by a newer version of gprovision")

// Result is the history of one image.
type Result struct {
	Image           string   `json:"Image"` // full name without ".upd"
	ImagingAttempts uint     `json:"ImagingAttempts,omitempty"`
	ImagingFailures uint     `json:"ImagingFailures,omitempty"`
	BootAttempts    uint     `json:"BootAttempts,omitempty"`
	BootFailures    uint     `json:"BootFailures,omitempty"`
	Notes           []string `json:"Notes,omitempty"` // what happened and when, oldest first
}

// ParseHistory reads recovery_history.json. Unknown keys are ignored, and written again by Marshal. ErrNewerHistory is no damage. What else
// cannot be read goes to BadHistory (unit/state, Volume.ChangeHistory): a damaged history must not keep a unit from being restored.
func ParseHistory(b []byte) (History, error) {
	if len(b) > MaxHistory {
		return History{}, fmt.Errorf("parse history: %d bytes, at most %d", len(b), MaxHistory)
	}
	var head struct {
		Version int `json:"version"`
	}
	if json.Unmarshal(b, &head) == nil && head.Version > historyVersion {
		return History{}, fmt.Errorf("version %d: %w", head.Version, ErrNewerHistory)
	}
	var h History
	if err := json.Unmarshal(b, &h); err != nil {
		return History{}, fmt.Errorf("parse history: %w", err)
	}
	seen := map[string]bool{}
	for i, r := range h.ImageResults {
		if r.Image == "" || len(r.Image) > 255 {
			return History{}, fmt.Errorf("parse history: record %d has no image, or too long a name", i)
		}
		if seen[r.Image] {
			return History{}, fmt.Errorf("parse history: two records for %q", r.Image)
		}
		seen[r.Image] = true
	}
	h.unknown = unknown.Of(b, h)
	h.trim()
	return h, nil
}

// BadHistory is the name, beside HistoryFile, under which a damaged history is kept for support.
func BadHistory(at time.Time) string {
	return HistoryFile + "_bad" + at.UTC().Format("20060102T150405Z")
}

// Marshal returns the content of the file.
func (h History) Marshal() ([]byte, error) {
	if h.ImageResults == nil {
		h.ImageResults = []Result{}
	}
	b, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("write history: %w", err)
	}
	whole, err := h.unknown.Put(b)
	if err != nil {
		whole = b
	}
	var out bytes.Buffer
	if err := json.Indent(&out, whole, "", " "); err != nil {
		return nil, fmt.Errorf("write history: %w", err)
	}
	if out.Len() > maxKept {
		out.Reset()
		if err := json.Indent(&out, b, "", " "); err != nil {
			return nil, fmt.Errorf("write history: %w", err)
		}
	}
	out.WriteByte('\n')
	if out.Len() > MaxHistory { // the notes of the images that were not used for the longest time
		return h.forgetNotes().Marshal()
	}
	return out.Bytes(), nil
}

// forgetNotes returns h without the notes of half of the images that have some, those that were not used for the longest time.
func (h History) forgetNotes() History {
	h.ImageResults = slices.Clone(h.ImageResults)
	var noted []int
	for i, r := range h.ImageResults {
		if len(r.Notes) > 0 {
			noted = append(noted, i)
		}
	}
	for _, i := range noted[len(noted)/2:] {
		h.ImageResults[i].Notes = nil
	}
	return h
}

// Find returns the record of an image (full name, with or without ".upd").
func (h History) Find(image string) (Result, bool) {
	i := h.index(image)
	if i < 0 {
		return Result{}, false
	}
	return h.ImageResults[i], true
}

// Check reports whether an image may be chosen: unknown ones may, and those with at most MaxFailures failures. The caller
// takes the last candidate all the same, and says so.
func (h History) Check(image string) bool {
	r, ok := h.Find(image)
	// Each is compared alone first: the sum of two numbers from a hostile file could wrap round.
	return !ok || r.ImagingFailures <= MaxFailures && r.BootFailures <= MaxFailures && r.ImagingFailures+r.BootFailures <= MaxFailures
}

// Imaging records that the image was written to the main disk, or that this failed, and moves its record to the front.
func (h *History) Imaging(image string, success bool, at time.Time) {
	r := h.front(image)
	r.ImagingAttempts = plus(r.ImagingAttempts, 1)
	if !success {
		r.ImagingFailures = plus(r.ImagingFailures, 1)
	}
	r.note("Imaging @ %s, success: %t", at.Format(time.RFC3339), success)
	h.trim()
}

// Boot records that the image was started, or that this failed, and moves its record to the front. A failure counts severity
// times, at least once.
func (h *History) Boot(image string, success bool, severity uint, at time.Time, notes string) {
	r := h.front(image)
	r.BootAttempts = plus(r.BootAttempts, 1)
	text := fmt.Sprintf("Boot @ %s, success: %t", at.Format(time.RFC3339), success)
	if !success {
		r.BootFailures = plus(r.BootFailures, max(severity, 1))
	}
	if severity != 0 || notes != "" {
		text += fmt.Sprintf(", severity: %d, notes: %s", severity, notes)
	}
	r.note("%s", text)
	h.trim()
}

// Forgive forgets the failures of an image, and keeps its notes: it was fetched again, or a person asked for it.
func (h *History) Forgive(image string) {
	if i := h.index(image); i >= 0 {
		h.ImageResults[i].ImagingFailures, h.ImageResults[i].BootFailures = 0, 0
	}
}

func (h *History) index(image string) int {
	image = strings.TrimSuffix(image, Suffix)
	return slices.IndexFunc(h.ImageResults, func(r Result) bool { return r.Image == image })
}

// front moves the record of image to the front, making it if need be, and returns it. Valid until the next change.
func (h *History) front(image string) *Result {
	r := Result{Image: strings.TrimSuffix(image, Suffix)}
	if i := h.index(image); i >= 0 {
		r = h.ImageResults[i]
		h.ImageResults = slices.Delete(h.ImageResults, i, i+1)
	}
	h.ImageResults = slices.Insert(h.ImageResults, 0, r)
	return &h.ImageResults[0]
}

func (h *History) trim() {
	if len(h.ImageResults) > maxRecords {
		h.ImageResults = h.ImageResults[:maxRecords]
	}
	for i := range h.ImageResults {
		r := &h.ImageResults[i]
		if n := len(r.Notes); n > maxNotes {
			r.Notes = slices.Clone(r.Notes[n-maxNotes:])
		}
	}
}

func (r *Result) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if len(text) > maxNote {
		text = strings.ToValidUTF8(text[:maxNote], "")
	}
	r.Notes = append(r.Notes, text)
}

// plus adds without wrapping round.
func plus(a, b uint) uint {
	if a+b < a {
		return ^uint(0)
	}
	return a + b
}
