package person

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"gprovision/hw/drive"
	"gprovision/unit/panel"
)

// psidLength is how many characters a PSID has (Seagate BarraCuda 510 SSD product manual, 6.2.2).
const psidLength = 32

// ErrPSID says that a text is no PSID.
var ErrPSID = errors.New("not a PSID")

// ParsePSID reads a PSID as a person types it off a label: capital letters and digits. Blanks and dashes between them, and small letters,
// do not matter. The error does not repeat the text.
func ParsePSID(text string) (drive.PSID, error) {
	text = strings.NewReplacer(" ", "", "-", "").Replace(strings.ToUpper(text))
	for i, c := range text {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') {
			return "", fmt.Errorf("%w: character %d is neither a letter nor a digit", ErrPSID, i+1)
		}
	}
	if len(text) != psidLength {
		return "", fmt.Errorf("%w: it has %d characters, and %d are on the label", ErrPSID, len(text), psidLength)
	}
	return drive.PSID(text), nil
}

// AskPSID asks for the number on the label of a drive that is locked, until what is typed can be one. It is empty if nobody types any. What
// is typed is shown, since nobody types so much blind, and neither logged nor kept.
func AskPSID(ctx context.Context, p *panel.Board, name string) (drive.PSID, error) {
	for {
		text, _, err := p.Line(ctx, fmt.Sprintf("PSID on the label of %s, or nothing", name), false)
		switch {
		case errors.Is(err, panel.ErrTimeout), errors.Is(err, panel.ErrCancelled), errors.Is(err, panel.ErrNoInput):
			return "", nil
		case err != nil:
			return "", err
		case strings.TrimSpace(text) == "":
			return "", nil
		}
		psid, err := ParsePSID(text)
		if err == nil {
			return psid, nil
		}
		p.Message(fmt.Sprintf("Try again: %s", err))
	}
}
