package cli

import (
	"fmt"
	"io"
	"time"

	"codeberg.org/go-pdf/fpdf"

	"gprovision/model/erasure"
)

// Measures of a page, in millimetres.
const (
	pdfMargin = 18.0
	pdfLabel  = 42.0 // width of the first column
	pdfLine   = 5.0
	pdfBottom = 297 - 22.0 // of A4, above the footer
)

// pdfPages stands for the number of pages until it is known. No certificate has such a character in it.
const pdfPages = "\u00a6n\u00a6"

// erasePDF draws a certificate on pages.
type erasePDF struct {
	*fpdf.Fpdf
	view  eraseView
	latin func(string) string // to the encoding of the fonts that every reader has
}

// pdf writes the certificate as a document of A4 pages: the same bytes for the same certificate.
func (v eraseView) pdf(w io.Writer) error {
	p := fpdf.New("P", "mm", "A4", "")
	d := erasePDF{p, v, p.UnicodeTranslatorFromDescriptor("")}
	p.SetTitle("Erase of "+v.Unit, true)
	p.SetLang("en")
	p.SetCreationDate(v.Ended)
	p.SetModificationDate(v.Ended)
	p.SetCatalogSort(true)
	p.SetMargins(pdfMargin, pdfMargin, pdfMargin)
	p.SetAutoPageBreak(true, 297-pdfBottom)
	p.AliasNbPages(d.latin(pdfPages))
	p.SetFooterFunc(func() {
		p.SetY(-15)
		d.font("", 8)
		text := fmt.Sprintf("Erase of unit %s, run %s, page %d of %s", v.Unit, v.Run, p.PageNo(), pdfPages)
		p.CellFormat(0, pdfLine, d.latin(text), "", 0, "C", false, 0, "")
	})
	p.AddPage()
	d.head()
	for _, drive := range v.Drives {
		d.drive(drive)
	}
	if v.Volume != nil {
		d.volume(*v.Volume)
	}
	for _, part := range v.Parts {
		d.part(part)
	}
	if err := p.Output(w); err != nil {
		return fmt.Errorf("draw certificate: %w", err)
	}
	return nil
}

// head draws what is said of the unit.
func (d erasePDF) head() {
	v := d.view
	d.font("B", 16)
	d.MultiCell(0, 8, d.latin("Erase of unit "+v.Unit), "", "L", false)
	d.Ln(2)
	said := "The data of all main disks is proved to be gone, and a server vouches for the unit that says so."
	if !v.Holds {
		said = "This certificate does not prove that the data is gone: " + v.Why + "."
	}
	d.ink(!v.Holds, v.Outcome)
	d.font("B", 11)
	d.MultiCell(0, 6, d.latin(said+" "+v.Beside()), "1", "L", false)
	d.Ln(3)
	d.outcome("Main disks", v.Outcome, v.Level)
	if v.Recovery != nil {
		d.outcome("Recovery volume", v.Recovery.Outcome, v.Recovery.Level)
	}
	for _, p := range v.Parts {
		if p.State != erasure.Cleared {
			d.line(p.Name, p.State.Sentence(), erasure.Failed)
		}
	}
	demanded := "none"
	if v.Require != "" {
		demanded = string(v.Require)
	}
	signed := fmt.Sprintf("by the unit's key %s; vouched for by %s", v.Key, v.VouchedBy)
	if v.VouchedBy == "" {
		signed = fmt.Sprintf("by a unit nobody vouches for, with the key %s: %s", v.Key, v.NotVouched)
	}
	logged := v.LoggedAs
	if logged == "" {
		logged = "not yet logged: " + v.NotLogged
	}
	if v.Compared {
		logged += "; it agrees with the other checkpoint"
	}
	d.row("Level demanded", demanded)
	d.row("When", v.Times())
	d.row("Platform", v.Platform)
	d.row("Signature", signed)
	d.row("Log", logged)
	d.row("Software", v.Software)
	d.rows("Not reached", v.NotReached)
	d.rows("Stays on the unit", v.Kept)
}

// drive draws what is said of one drive.
func (d erasePDF) drive(x eraseDrive) {
	d.heading(fmt.Sprintf("%s: %s, %s", x.Name, x.Model, x.Serial))
	d.outcome("Outcome", x.Outcome, x.Level)
	d.rows("Because", x.Sentences)
	method := "none"
	if x.Method != "" {
		method = string(x.Method)
	}
	d.row("Method", method)
	d.row("Drive", fmt.Sprintf("%s, %s, firmware %s, %d bytes", x.Role, x.Bus, x.Firmware, x.Bytes))
	for _, c := range x.Capability {
		d.row("It says", c.Name+"="+c.Value)
	}
	samples := fmt.Sprintf("%d say that the data is gone, %d that it is not, %d could not be read. %d of %d blocks were read afterwards.",
		x.Samples, x.Places.Unchanged, x.Places.Unreadable, x.Read, x.Blocks)
	for _, m := range x.Missed {
		samples += fmt.Sprintf(" If %s were left, they would miss it with a chance of at most %s.", m.Left, m.Chance)
	}
	d.row("Samples", samples)
	for _, r := range x.Unwritten {
		d.row("Not written", fmt.Sprintf("%d blocks from %d", r.Count, r.First))
	}
	d.rows("Not reached", x.NotReached)
	for _, c := range x.Commands {
		d.row("Command", fmt.Sprintf("%s %s, for %s: %s. %s to %s", c.Name, c.Arguments, c.Method, c.Status, c.Started.Format(time.DateTime),
			c.Ended.Format(time.TimeOnly)))
	}
}

// volume draws what is said of the recovery volume.
func (d erasePDF) volume(x eraseVolume) {
	d.heading(fmt.Sprintf("%s: recovery volume on %s, %s", x.Name, x.Model, x.Serial))
	d.outcome("Outcome", x.Outcome, x.Level)
	d.rows("Because", x.Sentences)
	d.row("Volume", fmt.Sprintf("%s, %d bytes", x.Filesystem, x.Bytes))
	d.row("Free space", x.Space())
	d.rows("Not reached", x.NotReached)
}

func (d erasePDF) heading(text string) {
	if d.GetY() > pdfBottom-40 { // a heading is not left alone
		d.AddPage()
	}
	d.Ln(5)
	d.ink(false, "")
	d.font("B", 12)
	d.MultiCell(0, 6, d.latin(text), "", "L", false)
	d.Ln(1)
}

// part draws what is said of something that is no drive.
func (d erasePDF) part(p erasure.Part) {
	d.Ln(5)
	state := erasure.Failed
	if p.State == erasure.Cleared {
		state = erasure.Proved
	}
	d.line(p.Name, p.State.Sentence(), state)
	for _, s := range p.Seen {
		d.row("Looked at", fmt.Sprintf("%s: %s", s.What, s.Found))
	}
	for _, c := range p.Commands {
		d.row("Command", fmt.Sprintf("%s: %s, %s", c.Name, c.Status, c.At.Format(time.DateTime)))
	}
}

func (d erasePDF) rows(label string, texts []string) {
	for _, t := range texts {
		d.row(label, t)
	}
}

// outcome draws a row in the colour of an outcome.
func (d erasePDF) outcome(label string, o erasure.Outcome, l erasure.Level) {
	d.line(label, d.view.Said(o, l), o)
}

func (d erasePDF) row(label, text string) { d.line(label, text, "") }

// line draws a label and a text beside it, both on one page.
func (d erasePDF) line(label, text string, o erasure.Outcome) {
	text = d.latin(text)
	width := 210 - 2*pdfMargin - pdfLabel
	d.font("", 10)
	height := pdfLine * float64(len(d.SplitLines([]byte(text), width)))
	if d.GetY()+height+1 > pdfBottom && height < pdfBottom-pdfMargin {
		d.AddPage()
	}
	y := d.GetY()
	d.ink(false, "")
	d.font("B", 10)
	d.CellFormat(pdfLabel, pdfLine, d.latin(label), "", 0, "L", false, 0, "")
	d.ink(false, o)
	d.font("", 10)
	d.SetXY(pdfMargin+pdfLabel, y)
	d.MultiCell(width, pdfLine, text, "", "L", false)
	d.SetDrawColor(200, 200, 200)
	d.Line(pdfMargin, d.GetY()+0.5, 210-pdfMargin, d.GetY()+0.5)
	d.Ln(1)
}

// ink sets the colour of an outcome, or of doubt. Only what is proved, and holds, is green.
func (d erasePDF) ink(doubt bool, o erasure.Outcome) {
	r, g, b := 17, 17, 17
	switch {
	case doubt, o == erasure.Failed, o == erasure.Unknown:
		r, g, b = 160, 16, 16
	case o == erasure.Weaker:
		r, g, b = 122, 75, 0
	case o == erasure.Proved && d.view.Holds:
		r, g, b = 10, 92, 43
	}
	d.SetTextColor(r, g, b)
	d.SetDrawColor(r, g, b)
}

func (d erasePDF) font(style string, size float64) { d.SetFont("Helvetica", style, size) }
