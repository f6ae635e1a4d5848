package lcd_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"gprovision/hw/lcd"
)

func TestWrap(t *testing.T) {
	long := "This is a very long message that seemingly never ever ends"
	for _, tt := range []struct {
		text  string
		width int
		want  string
	}{
		{"short message", 12, "short|message"},
		{"short message", 13, "short message"},
		{"short message", 3, "sho|rt|mes|sag|e"},
		{long, 20, "This is a very long|message that|seemingly never ever|ends"},
		{strings.Repeat("_", 45), 20, strings.Repeat("_", 20) + "|" + strings.Repeat("_", 20) + "|_____"},
		{" two\nlines", 20, " two|lines"},
		{"", 20, ""},
		{"größer", 3, "grö|ßer"},
		{"x", 0, ""},
	} {
		if got := strings.Join(lcd.Wrap(tt.text, tt.width), "|"); got != tt.want {
			t.Errorf("%q in %d: %q, want %q", tt.text, tt.width, got, tt.want)
		}
	}
}

func TestMarquee(t *testing.T) {
	var got []string
	for i := range 12 {
		got = append(got, lcd.Marquee("abcdefgh", 5, time.Duration(i)*lcd.Step))
	}
	// final is 3: positions 0 0 1 2 3 3 3 | 0 0 0 1 2.
	want := []string{"abcd»", "abcd»", "«cde»", "«def»", "«efgh", "«efgh", "«efgh", "abcd»", "abcd»", "abcd»", "«cde»", "«def»"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	for text, want := range map[string]string{"abc": "abc  ", "": "     ", "abcde": "abcde", "äöüßé": "äöüßé"} {
		if got := lcd.Marquee(text, 5, time.Hour); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
	if got := lcd.Marquee("abcdef", 3, 0); got != "abc" {
		t.Errorf("narrow: %q", got)
	}
	if got := lcd.Marquee("abcdef", 0, 0); got != "" {
		t.Errorf("no width: %q", got)
	}
}

func TestScroll(t *testing.T) {
	lines := []string{"1", "2", "3"}
	var got []string
	for i := range 6 {
		got = append(got, strings.Join(lcd.Scroll(lines, 2, 4*time.Duration(i)*lcd.Step), "+"))
	}
	if want := []string{"1+2", "2+3", "3", "", "1+2", "2+3"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := lcd.Scroll(lines, 3, time.Hour); !slices.Equal(got, lines) {
		t.Errorf("what fits moves: %q", got)
	}
}

func TestDrawing(t *testing.T) {
	if got := lcd.Bar(10, 49) + lcd.Bar(2, 100) + lcd.Bar(2, 500) + lcd.Bar(1, -3); got != "████      ████ " {
		t.Errorf("bars %q", got)
	}
	for _, tt := range [][3]string{{"left", "right", "left      right"}, {"a long left side", "right", "a long le right"}, {"", "right", "          right"}, {"left", "", "left           "}} {
		if got := lcd.Between(tt[0], tt[1], 15); got != tt[2] {
			t.Errorf("%q and %q: %q", tt[0], tt[1], got)
		}
	}
	all := " !\"#$%&'()*+,-./0123456789:;<=>?@ABCXYZ[\\]^_abcxyz{|}~ÄÖÜäöüñ«»►◄▲▼█"
	if got := lcd.Decode(lcd.Encode(all)); got != all {
		t.Errorf("got %q, want %q", got, all)
	}
	if got := lcd.Encode("$[]\\|_»"); string(got) != "\xa2\xfa\xfc\xfb\xfe\xc4\x15" {
		t.Errorf("got % x", got)
	}
	if got := lcd.Decode(lcd.Encode("a\tb\x7f–漢")); got != "a b -?" {
		t.Errorf("got %q", got)
	}
}

func release(k lcd.Key) lcd.KeyEvent { return lcd.KeyEvent{Key: k, Release: true} }

func shows(t *testing.T, q lcd.Menu, m lcd.Model, elapsed time.Duration, legend lcd.Legend, want ...string) {
	t.Helper()
	f := q.Picture(m, elapsed)
	lines := slices.Clone(f.Lines)
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	if !slices.Equal(lines, want) || f.Legend != legend {
		t.Errorf("%v shows %q with %v, want %q with %v", m, lines, f.Legend, want, legend)
	}
}

func TestMenu(t *testing.T) {
	q := lcd.Menu{Text: "Boot menu", Options: []string{"Resume normal boot", "Power off", "Restore latest image", "Restore original", "Choose an image"}}
	shows(t, q, lcd.Model635, 0, lcd.LegendDown, "Boot menu", "►Resume normal boot", " Power off", " Restore latest im»")
	shows(t, q, lcd.Model631, 0, lcd.LegendDown, "Boot menu", "►Resume normal b»")
	for _, e := range []lcd.KeyEvent{release(lcd.KeyUp), {Key: lcd.KeyDown}, {Key: lcd.KeyEnter}, {}} { // nothing above; pressed keys do not count
		if got := q.Key(e); got != lcd.Undecided || q.Selected != 0 {
			t.Errorf("%+v: %d, selected %d", e, got, q.Selected)
		}
	}
	for range 2 {
		q.Key(release(lcd.KeyDown))
	}
	shows(t, q, lcd.Model635, 0, lcd.LegendUpDown, "Boot menu", " Power off", "►Restore latest im»", " Restore original")
	for range 5 {
		q.Key(release(lcd.KeyLL))
	}
	shows(t, q, lcd.Model635, 0, lcd.LegendUp, "Boot menu", " Restore latest im»", " Restore original", "►Choose an image")
	shows(t, q, lcd.Model631, 0, lcd.LegendUp, "Boot menu", "►Choose an image")
	q.Key(release(lcd.KeyUL))
	if got := q.Key(release(lcd.KeyUR)); got != 3 {
		t.Errorf("chosen %d", got)
	}
	if got := q.Key(release(lcd.KeyExit)); got != lcd.Cancelled {
		t.Errorf("cancelled: %d", got)
	}
	none := lcd.Menu{}
	if got := none.Key(release(lcd.KeyEnter)); got != lcd.Undecided {
		t.Errorf("empty menu: %d", got)
	}
	shows(t, none, lcd.Model635, 0, lcd.LegendChoose)
	// Without a text the list has all rows.
	shows(t, lcd.Menu{Options: []string{"a", "b", "c"}, Selected: 2}, lcd.Model631, 0, lcd.LegendUp, " b", "►c")
}

func TestQuestion(t *testing.T) {
	q := lcd.Menu{Text: "From boot option, you chose Power off. Are you certain?", Options: []string{"No", "Yes"}}
	shows(t, q, lcd.Model635, 0, lcd.LegendRight, "From boot option,", "you chose Power off.", "Are you certain?", "►No◄ Yes")
	shows(t, q, lcd.Model631, 10*lcd.Step, lcd.LegendRight, "«option, you cho»", "►No◄ Yes")
	q.Key(release(lcd.KeyRight))
	shows(t, q, lcd.Model635, 0, lcd.LegendLeft, "From boot option,", "you chose Power off.", "Are you certain?", " No ►Yes◄")
	if got := q.Key(release(lcd.KeyEnter)); got != 1 {
		t.Errorf("chosen %d", got)
	}
	q.Key(release(lcd.KeyRight)) // goes round
	if got := q.Key(release(lcd.KeyEnter)); got != 0 {
		t.Errorf("chosen %d", got)
	}
	q.Key(release(lcd.KeyLeft))
	if q.Selected != 1 {
		t.Errorf("selected %d", q.Selected)
	}
	shows(t, lcd.Menu{Text: "Short?", Options: []string{"OK"}}, lcd.Model635, 0, lcd.LegendChoose, "Short?", "", "", "►OK◄")
}
