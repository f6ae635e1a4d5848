package report

import (
	"context"

	"gprovision/model/record"
)

// DriveBefore tells the server what a drive is before an erase changes it. It may be repeated: the server replaces nothing.
func (c *Client) DriveBefore(ctx context.Context, b record.EraseBefore) error {
	if err := b.Validate(); err != nil {
		return err
	}
	return c.post(ctx, "/v1/erases/before", b, nil)
}

// Erased sends the certificate of an erase and returns what the server says to it: the files that belong beside the certificate. It may be
// repeated, also after the server has ended this life of the unit: the answer is the same. What else is to reach the server must be sent
// before, since a proved or accepted erase revokes the key by which the unit speaks.
func (c *Client) Erased(ctx context.Context, s record.EraseSubmission) (record.EraseReply, error) {
	var reply record.EraseReply
	err := c.post(ctx, "/v1/erases", s, &reply)
	return reply, err
}
