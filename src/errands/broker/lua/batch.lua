-- join(context, run, batch): the run is a member of the batch.
local function join(context, run, batch)
end

-- member_ended(context, run, batch, state): a member has come to its final state, once.
local function member_ended(context, run, batch, state)
end
